// A panel's SQL as it reaches ClickHouse.
//
// The plugin's browser side decides `$__conditionalAll`, Grafana replaces the variables, and the plugin's back end expands
// the other macros, in that order.

import { forClickHouse, replaceVariables } from './variables.mjs';

/** `range` is {from, to, intervalMs}, in milliseconds. */
export function expandSql(sql, { variables, range }) {
  const conditional = replaceCalls(sql, '$__conditionalAll', (args) => conditionalAll(args, variables));
  const text = expandMacros(replaceVariables(conditional, variables, forClickHouse), range);
  const left = text.match(/\$\w+|\$\{.*?\}/);
  if (left) throw new Error(`nothing is known of ${left[0]}: ${text}`);
  return text;
}

function conditionalAll(args, variables) {
  if (args.length < 2) throw new Error('$__conditionalAll wants a condition and a variable');
  // The condition may have commas of its own; the variable is what stands last.
  const name = args.at(-1).replace(/[${}]/g, '').replace(/:.*/, '');
  const variable = variables[name];
  if (!variable) throw new Error(`nothing is known of the variable ${args.at(-1)}`);
  const unbound = variable.all || variable.values.every((value) => value === '');
  return unbound ? '1=1' : args.slice(0, -1).join(', ');
}

function expandMacros(sql, { from, to, intervalMs }) {
  const second = (ms) => Math.floor(ms / 1000);
  const start = `toDateTime(${second(from)})`;
  const end = `toDateTime(${second(to)})`;
  const startMs = `fromUnixTimestamp64Milli(${from})`;
  const endMs = `fromUnixTimestamp64Milli(${to})`;
  const seconds = Math.max(1, Math.floor(intervalMs / 1000));
  const dates = (column) => `${column} >= toDate('${day(from)}') AND ${column} <= toDate('${day(to)}')`;
  const calls = {
    $__timeFilter_ms: ([column]) => `${column} >= ${startMs} AND ${column} <= ${endMs}`,
    $__timeFilter: ([column]) => `${column} >= ${start} AND ${column} <= ${end}`,
    $__dateTimeFilter: ([date, time]) => `(${dates(date)}) AND (${time} >= ${start} AND ${time} <= ${end})`,
    $__dateFilter: ([column]) => dates(column),
    $__timeInterval_ms: ([column]) =>
      `toStartOfInterval(toDateTime64(${column}, 3), INTERVAL ${Math.max(1, Math.floor(intervalMs))} millisecond)`,
    $__timeInterval: ([column]) => `toStartOfInterval(toDateTime(${column}), INTERVAL ${seconds} second)`,
  };
  let text = sql;
  // A name that starts with another one comes before it.
  for (const [name, expand] of Object.entries(calls)) text = replaceCalls(text, name, expand);
  return text
    .replaceAll('$__fromTime_ms', startMs)
    .replaceAll('$__toTime_ms', endMs)
    .replaceAll('$__fromTime', start)
    .replaceAll('$__toTime', end)
    .replaceAll('$__interval_s', String(seconds));
}

const day = (ms) => new Date(ms).toISOString().slice(0, 10);

/** Replaces each `name(…)` by what its arguments give. */
function replaceCalls(text, name, expand) {
  let rest = text;
  let done = '';
  for (let at = rest.indexOf(name); at >= 0; at = rest.indexOf(name)) {
    const { args, end } = callArguments(rest, at + name.length, name);
    done += rest.slice(0, at) + expand(args);
    rest = rest.slice(end);
  }
  return done + rest;
}

/** The arguments of the call whose parenthesis opens at `open`, and where it ends. */
function callArguments(text, open, name) {
  if (text[open] !== '(') throw new Error(`${name} without arguments`);
  const args = [];
  let depth = 0;
  let start = open + 1;
  for (let at = open; at < text.length; at++) {
    if (text[at] === '(') depth++;
    if (text[at] === ')') depth--;
    if (depth === 0 || (depth === 1 && text[at] === ',')) {
      args.push(text.slice(start, at).trim());
      start = at + 1;
    }
    if (depth === 0) return { args, end: at + 1 };
  }
  throw new Error(`${name} is not closed: ${text}`);
}
