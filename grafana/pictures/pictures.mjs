// Draws every dashboard of grafana/dashboards into docs/pictures: `make pictures`.
//
// There is no Grafana in it. The dashboards' JSON is read, its variables and macros are expanded and its questions asked of
// a running daemon's ClickHouse and of a Prometheus, as Grafana and its ClickHouse plugin do, and the answers are
// drawn with Grafana's own components. A panel whose question fails, or that has nothing to show, is an error.

import { parseArgs } from 'node:util';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

import { Photographer } from './photographer.mjs';
import { ACCOUNT, SCRAPE_SECONDS, Stage, WATCHED } from './stage/stage.mjs';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const DASHBOARDS = path.join(ROOT, 'grafana/dashboards');
const PICTURES = path.join(ROOT, 'docs/pictures');
/** A page shows them all, over a phone's line too. */
const PICTURE_BYTES_MAX = 500_000;
/** Of these, nobody watched more than the last minutes. */
const LIVE = ['ingest.json'];

async function main() {
  const { values } = parseArgs({
    options: {
      tally: { type: 'string', default: path.join(ROOT, 'target/release/tally') },
      loadtest: { type: 'string', default: path.join(ROOT, 'target/release/loadtest') },
    },
  });
  const rules = path.join(ROOT, 'prometheus/alerts.yml');
  const parent = path.join(ROOT, 'target/pictures');
  await mkdir(parent, { recursive: true });
  await mkdir(PICTURES, { recursive: true });
  const stage = new Stage();
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => stage.end().finally(() => process.exit(1)));
  }
  try {
    await stage.build(parent, { ...values, rules }, say);
    const photographer = await Photographer.start(stage);
    return await draw(photographer, stage).finally(() => photographer.stop());
  } finally {
    await stage.end();
  }
}

/** Everything that is wrong. */
async function draw(photographer, stage) {
  const wrong = [];
  const now = betweenTicks(Date.now());
  for (const file of (await readdir(DASHBOARDS)).filter((name) => name.endsWith('.json')).sort()) {
    say(`drawing ${file}`);
    const settings = {
      now,
      theme: 'dark',
      scrapeMs: SCRAPE_SECONDS * 1000,
      chosen: { account: ACCOUNT },
      time: LIVE.includes(file) ? WATCHED : undefined,
    };
    const dashboard = JSON.parse(await readFile(path.join(DASHBOARDS, file), 'utf8'));
    const { png, errors, said } = await photographer.photograph(dashboard, settings);
    errors.push(...said.map((text) => `${file}: the browser's console: ${text}`));
    if (!png) errors.push(`${file}: there is no picture of it`);
    if (png?.length > PICTURE_BYTES_MAX) errors.push(`${file}: its picture has ${png.length} bytes`);
    // The picture that is there is better than one of which something is missing.
    if (errors.length === 0) await writeFile(path.join(PICTURES, file.replace(/json$/, 'png')), png);
    wrong.push(...errors);
  }
  return wrong;
}

/** The last moment that is far from what an axis of some minutes labels: a label at its end would be cut off. */
function betweenTicks(at) {
  const tickMs = 30_000;
  return Math.floor((at - tickMs / 2) / tickMs) * tickMs + tickMs / 2;
}

function say(text) {
  console.error(`pictures: ${text}`);
}

const wrong = await main();
for (const text of wrong) say(text);
process.exitCode = wrong.length > 0 ? 1 : 0;
