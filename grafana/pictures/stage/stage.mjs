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
/** Orders that were there before, and are sent again. */
const REPEATED = { seed: '7', rate: 200, seconds: 10 };
/** Conversions a second that somebody is told of. */
const TOLD_RATE = 4;
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
  async build(parent, programs, say) {
    this.programs = programs;
    this.folder = await mkdtemp(path.join(parent, 'pictures-'));
    this.#endings.push(() => rm(this.folder, { recursive: true, force: true }));
    this.data = path.join(this.folder, 'data');
    const [http, ops, prometheus] = await freePorts(3);
    this.url = `http://127.0.0.1:${http}`;
    this.ops = `127.0.0.1:${ops}`;
    this.prometheus = `http://127.0.0.1:${prometheus}`;

    say('starting a daemon');
    await this.#startDaemon();
    this.clickhouse = (await readFile(path.join(this.data, 'reader.url'), 'utf8')).trim();
    this.key = (await readFile(path.join(this.data, 'api-key'), 'utf8')).trim();
    say('making history');
    await this.#makeHistory();
    const repeated = ['--token', await this.#goal({ name: 'Sent again' }), '--seed', REPEATED.seed, '--connections', '1'];
    await this.#load('orders', REPEATED.rate, REPEATED.seconds, repeated);
    // Copies of these orders are then told by what ClickHouse knows, and not by what the daemon remembers.
    await this.daemon.stop();
    await this.#startDaemon();
    say('starting Prometheus');
    await this.#startPrometheus();

    const seconds = LOAD.reduce((sum, phase) => sum + phase.seconds, 0);
    say(`putting it under load for ${seconds} seconds`);
    await Promise.all([
      this.#load('told', TOLD_RATE, seconds, ['--token', await this.#toldGoal(), '--connections', '2']),
      this.#load('again', (REPEATED.rate * REPEATED.seconds) / seconds, seconds, repeated),
      this.#loadInPhases(),
    ]);
    say('waiting until everything is counted');
    const pending = () => this.#query('sum(tally_hits_pending)');
    await this.daemon.until('the end of what is pending', async () => (await pending()) === '0');
  }

  async #startDaemon() {
    const serve = ['serve', '--data-dir', this.data, '--listen', new URL(this.url).host, '--ops-listen', this.ops];
    serve.push('--rate-limit-per-minute', '0', '--postback-allow', '127.0.0.0/8');
    this.daemon = this.#start('tally', this.programs.tally, serve);
    await this.daemon.until('it is ready', async () => (await fetch(`http://${this.ops}/readyz`)).ok);
  }

  async #makeHistory() {
    const { data } = await this.#create('accounts', { account: { name: ACCOUNT, plan: 'enterprise' } });
    for (const seed of HISTORY.seeds) {
      const past = ['--seed', seed, '--people', HISTORY.people, '--days', HISTORY.days];
      await this.#loadtest('demo', ['demo', '--url', this.url, '--api-key', data.api_key, ...past]);
    }
  }

  async #startPrometheus() {
    const configuration = path.join(this.folder, 'prometheus.yml');
    await writeFile(configuration, prometheusConfiguration(this.ops, this.programs.rules));
    const watch = [`--config.file=${configuration}`, `--storage.tsdb.path=${path.join(this.folder, 'prometheus')}`];
    watch.push(`--web.listen-address=${new URL(this.prometheus).host}`);
    const watcher = this.#start('prometheus', 'prometheus', watch);
    await watcher.until('what the daemon says', async () => (await this.#query('tally_ready')) === '1');
  }

  async #loadInPhases() {
    const mix = ['--data-dir', this.data, '--connections', '16', '--bad', '0.04', '--clicks-per-hit', '1'];
    for (const { rate, seconds } of LOAD) await this.#load('load', rate, seconds, mix);
  }

  /** A goal whose owner is told of its conversions. */
  async #toldGoal() {
    const owner = await listen();
    this.#endings.push(owner.stop);
    return this.#goal({ name: 'Told', value: '20.00', currency: 'EUR', postback_url: owner.url });
  }

  #load(name, rate, seconds, args) {
    const run = ['run', '--url', this.url, '--rate', String(rate), '--seconds', String(seconds)];
    return this.#loadtest(name, [...run, ...args]);
  }

  #loadtest(name, args) {
    return this.#start(name, this.programs.loadtest, args).finish();
  }

  #start(name, program, args) {
    const started = new Program(program, args, path.join(this.folder, `${name}.log`));
    this.#endings.push(() => started.stop());
    return started;
  }

  /** A goal of the load's account, as the load tool names it. */
  async #goal(goal) {
    const { data } = await this.#create('conversions/goals', { goal: { goal_type: 'purchase', ...goal } });
    return `${data.id}:${data.postback_token}`;
  }

  #create(what, body) {
    return ask(`${this.url}/api/v1/${what}`, { key: this.key, body });
  }

  async #query(text) {
    const { data } = await ask(`${this.prometheus}/api/v1/query?query=${text}`);
    return data.result[0]?.value[1];
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
