// Programs that the stage starts, and ends.

import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { openSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

const ENDING_MS = 20_000;
const READY_MS = 120_000;

/** A program that runs until `stop`; what it says goes to `log`. */
export class Program {
  constructor(program, args, log) {
    this.name = program;
    this.log = log;
    const file = openSync(log, 'a');
    this.child = spawn(program, args, { stdio: ['ignore', file, file] });
    this.ended = new Promise((resolve) => {
      this.child.on('error', (error) => resolve(error.message));
      this.child.on('exit', (code, signal) => resolve(signal ?? code));
    });
  }

  /** Until `condition` holds; an error if the program ends before, or the time does. */
  async until(what, condition) {
    const deadline = Date.now() + READY_MS;
    let ended = false;
    this.ended.then(() => (ended = true));
    while (!(await condition().catch(() => false))) {
      if (ended) throw new Error(`${this.name} ended before ${what}:\n${this.said()}`);
      if (Date.now() > deadline) throw new Error(`${this.name}: no sign of ${what}:\n${this.said()}`);
      await pause(100);
    }
  }

  /** Until it has ended by itself, well. */
  async finish() {
    const how = await this.ended;
    if (how !== 0) throw new Error(`${this.name} ended with ${how}:\n${this.said()}`);
  }

  async stop() {
    this.child.kill('SIGTERM');
    const late = setTimeout(() => this.child.kill('SIGKILL'), ENDING_MS);
    await this.ended;
    clearTimeout(late);
  }

  said() {
    return readFileSync(this.log, 'utf8').trimEnd().split('\n').slice(-20).join('\n');
  }
}

/** Ports that were free a moment ago. */
export async function freePorts(count) {
  const servers = Array.from({ length: count }, () => createServer());
  const listening = servers.map((server) => new Promise((resolve) => server.listen(0, '127.0.0.1', resolve)));
  await Promise.all(listening);
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
