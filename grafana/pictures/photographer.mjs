// From a dashboard to a picture: a page with it, served to a headless Chromium and photographed.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import sharp from 'sharp';

import { gridHeight, WIDTH } from './page/layout.js';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const packageFolder = (name) => path.dirname(createRequire(import.meta.url).resolve(`${name}/package.json`));
/** What Grafana serves beside its pages, and where it is here. A font's file may be of any weight. */
const PUBLIC = [
  ['/public/build/img/icons/', (name) => path.join(packageFolder('@grafana/ui'), 'dist/public/img/icons', name)],
  ['/public/fonts/inter/', () => path.join(packageFolder('@fontsource-variable/inter'), 'files/inter-latin-wght-normal.woff2')],
  ['/public/fonts/roboto/', () => path.join(packageFolder('@fontsource/roboto-mono'), 'files/roboto-mono-latin-400-normal.woff2')],
];
const CHROMIUM = '/usr/bin/chromium';
/** Sharp on the screens that people have, and still small. */
const SCALE = 2;
/** More than what stands above the panels. */
const HEADER = 200;
const DRAWING_MS = 120_000;
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' };

/** `sources` are {clickhouse: URL with user and password, prometheus: URL}. */
export class Photographer {
  static async start(sources) {
    const photographer = new Photographer();
    photographer.files = await bundle();
    photographer.server = createServer((request, response) => {
      photographer.#serve(request, response, sources).catch((error) => {
        response.writeHead(502).end(`${error.message}: ${error.cause ?? ''}`);
      });
    });
    await new Promise((resolve) => photographer.server.listen(0, '127.0.0.1', resolve));
    photographer.browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-proxy-server', '--font-render-hinting=none'],
    });
    return photographer;
  }

  /** The PNG of a dashboard. Throws what the page found wrong. */
  async photograph(dashboard, settings) {
    this.drawing = JSON.stringify({ dashboard, settings });
    const context = await this.browser.newContext({
      // All of it at once: what is out of sight is not drawn.
      viewport: { width: WIDTH, height: gridHeight(dashboard.panels) + HEADER },
      deviceScaleFactor: SCALE,
      timezoneId: 'UTC',
      locale: 'en-US',
      reducedMotion: 'reduce',
    });
    try {
      const page = await context.newPage();
      const said = [];
      page.on('console', (message) => {
        if (message.type() === 'error') said.push(`${message.text()} (${message.location().url})`);
      });
      await page.goto(`http://127.0.0.1:${this.server.address().port}/`);
      await page.waitForFunction(() => window.drawn, undefined, { timeout: DRAWING_MS }).catch((error) => {
        throw new Error([error.message, ...said].join('\n'));
      });
      const errors = await page.evaluate(() => window.drawn);
      const png = await page.locator('main').screenshot({ animations: 'disabled' }).catch(() => undefined);
      return { png: png && (await small(png)), errors, said };
    } finally {
      await context.close();
    }
  }

  async stop() {
    await this.browser?.close();
    this.server.close();
    this.server.closeAllConnections();
  }

  async #serve(request, response, sources) {
    const { pathname, search } = new URL(request.url, 'http://page');
    const found = (body, name) => response.writeHead(200, { 'content-type': TYPES[path.extname(name)] }).end(body);
    if (pathname === '/') return found(PAGE, 'page.html');
    if (pathname === '/drawing.json') return found(this.drawing, pathname);
    if (this.files[pathname]) return found(this.files[pathname], pathname);
    for (const [prefix, place] of PUBLIC.filter(([prefix]) => pathname.startsWith(prefix))) {
      const name = place(pathname.slice(prefix.length));
      return found(await readFile(name), name);
    }
    if (pathname === '/clickhouse') return relay(response, ...authorized(sources.clickhouse, search), await bodyOf(request));
    if (pathname.startsWith('/prometheus/')) {
      return relay(response, sources.prometheus + pathname.slice('/prometheus'.length) + search, {});
    }
    response.writeHead(404).end();
  }
}

const PAGE = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><link rel="stylesheet" href="/page.css">
<div id="root"></div><script type="module" src="/page.js"></script>`;

/** The page's files, by their paths. */
async function bundle() {
  const { outputFiles } = await build({
    entryPoints: { page: path.join(HERE, 'page/main.jsx') },
    outdir: '/',
    bundle: true,
    write: false,
    format: 'esm',
    jsx: 'automatic',
    // An editor's icons; no panel has an editor.
    loader: { '.ttf': 'empty' },
    define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
    logLevel: 'error',
  });
  return Object.fromEntries(outputFiles.map(({ path: name, contents }) => [name, contents]));
}

/** A URL without user and password, and the header that has them: `fetch` takes them only so. */
function authorized(url, search) {
  const bare = new URL(url);
  const [user, password] = [bare.username, bare.password].map(decodeURIComponent);
  bare.username = bare.password = bare.search = '';
  const authorization = `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;
  return [bare.href + search, { authorization }];
}

async function relay(response, url, headers, body) {
  const answer = await fetch(url, { method: body ? 'POST' : 'GET', headers, body });
  response.writeHead(answer.status).end(Buffer.from(await answer.arrayBuffer()));
}

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** A picture of flat colours needs few of them. */
const small = (png) => sharp(png).png({ palette: true, colours: 256, dither: 0.3, effort: 10, compressionLevel: 9 }).toBuffer();
