// What the pictures are of: a daemon of its own with a believable past, under some load, and a Prometheus that watches it.

import { createServer } from 'node:http';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { freePorts, Program } from './process.mjs';

/** The account whose past the pictures show. The load has another one, and stays out of it. */
export const ACCOUNT = 'Demo shop';
/** Twice the longest range of a dashboard, so that there is a period before. Each seed adds other people. */
const HISTORY = { days: '62', people: '30000', seeds: ['1', '2'] };
/** Short, so that few minutes are many points. */
export const SCRAPE_SECONDS = 5;
/** Hits a second, one after the other. */
const LOAD = [
  { rate: 150, seconds: 90 },
  { rate: 400, seconds: 80 },
  { rate: 250, seconds: 65 },
];
/** What is drawn of it: without its start, whose rates know of what was before. */
export const WATCHED = { from: 'now-3m', to: 'now' };
/** Decides the orders that are sent again. */
const SEED = '7';
/** What a goal's owner answers, over and over: one delivery in ten has to be repeated. */
const REPLIES = [200, 200, 200, 200, 503, 200, 200, 200, 200, 200];

export class Stage {
  #endings = [];
  #ended = Promise.resolve();

  /** Ends what was started, last first; at any time, and also while it is being ended. */
  end() {
    this.#ended = this.#ended.then(async () => {
      for (const ending of this.#endings.splice(0).reverse()) await ending();
    });
    return this.#ended;
  }

  /** In a folder of its own under `parent`, of two binaries and with Prometheus' rules. */
  async build(parent, { tally, loadtest, rules }, say) {
    const folder = await mkdtemp(path.join(parent, 'pictures-'));
    this.#endings.push(() => rm(folder, { recursive: true, force: true }));
    const data = path.join(folder, 'data');
    const [http, ops, prometheus] = await freePorts(3);
    const url = `http://127.0.0.1:${http}`;
    const keep = (running) => {
      this.#endings.push(() => running.stop());
      return running;
    };

    say('starting a daemon');
    const serve = ['serve', '--data-dir', data, '--listen', `127.0.0.1:${http}`, '--ops-listen', `127.0.0.1:${ops}`];
    serve.push('--rate-limit-per-minute', '0', '--postback-allow', '127.0.0.0/8');
    const start = async () => {
      const daemon = keep(new Program(tally, serve, path.join(folder, 'tally.log')));
      await daemon.until('it is ready', async () => (await fetch(`http://127.0.0.1:${ops}/readyz`)).ok);
      return daemon;
    };
    let daemon = await start();
    this.clickhouse = (await readFile(path.join(data, 'reader.url'), 'utf8')).trim();

    say('making history');
    const first = (await readFile(path.join(data, 'api-key'), 'utf8')).trim();
    const create = (what, body) => ask(`${url}/api/v1/${what}`, { key: first, body });
    const token = async (goal) => {
      const { data } = await create('conversions/goals', { goal: { goal_type: 'purchase', ...goal } });
      return `${data.id}:${data.postback_token}`;
    };
    const run = (name, args) => keep(new Program(loadtest, args, path.join(folder, `${name}.log`))).finish();
    const load = (name, rate, seconds, args) =>
      run(name, ['run', '--url', url, '--rate', String(rate), '--seconds', String(seconds), ...args]);
    const account = await create('accounts', { account: { name: ACCOUNT, plan: 'enterprise' } });
    for (const seed of HISTORY.seeds) {
      const past = ['--seed', seed, '--people', HISTORY.people, '--days', HISTORY.days];
      await run('demo', ['demo', '--url', url, '--api-key', account.data.api_key, ...past]);
    }
    const orders = ['--token', await token({ name: 'Sent again' }), '--seed', SEED, '--connections', '1'];
    await load('orders', 200, 10, orders);
    // Their copies are then told by what ClickHouse knows, and not by what the daemon remembers.
    await daemon.stop();
    daemon = await start();

    say('starting Prometheus');
    this.prometheus = `http://127.0.0.1:${prometheus}`;
    const query = async (text) => (await ask(`${this.prometheus}/api/v1/query?query=${text}`)).data.result[0]?.value[1];
    const configuration = path.join(folder, 'prometheus.yml');
    await writeFile(configuration, prometheusConfiguration(`127.0.0.1:${ops}`, rules));
    const watch = [`--config.file=${configuration}`, `--storage.tsdb.path=${path.join(folder, 'prometheus')}`];
    watch.push(`--web.listen-address=127.0.0.1:${prometheus}`);
    const watcher = keep(new Program('prometheus', watch, path.join(folder, 'prometheus.log')));
    await watcher.until('what the daemon says', async () => (await query('tally_ready')) === '1');

    const seconds = LOAD.reduce((sum, phase) => sum + phase.seconds, 0);
    say(`putting it under load for ${seconds} seconds`);
    const owner = await listen();
    this.#endings.push(owner.stop);
    const told = await token({ name: 'Told', value: '20.00', currency: 'EUR', postback_url: owner.url });
    const mix = ['--data-dir', data, '--connections', '16', '--bad', '0.04', '--clicks-per-hit', '1'];
    await Promise.all([
      load('told', 4, seconds, ['--token', told, '--connections', '2']),
      load('again', 200 * 10 / seconds, seconds, orders),
      (async () => {
        for (const phase of LOAD) await load('load', phase.rate, phase.seconds, mix);
      })(),
    ]);

    say('waiting until everything is counted');
    await daemon.until('the end of what is pending', async () => (await query('sum(tally_hits_pending)')) === '0');
  }
}

const prometheusConfiguration = (target, rules) => `global:
  scrape_interval: ${SCRAPE_SECONDS}s
  evaluation_interval: ${SCRAPE_SECONDS}s
rule_files: [${JSON.stringify(rules)}]
scrape_configs:
  - job_name: tally
    static_configs:
      - targets: [${JSON.stringify(target)}]
`;

/** JSON from a URL, or to it. */
async function ask(url, { key, body } = {}) {
  const response = await fetch(url, {
    method: body ? 'POST' : 'GET',
    headers: key && { authorization: `Bearer ${key}` },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${url}: ${response.status} ${text}`);
  return JSON.parse(text);
}

/** A goal's owner. */
async function listen() {
  let count = 0;
  const server = createServer((request, response) => {
    request.resume().on('end', () => response.writeHead(REPLIES[count++ % REPLIES.length]).end());
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const stop = async () => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${server.address().port}/conversions`, stop };
}
