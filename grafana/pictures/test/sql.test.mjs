// What reaches ClickHouse, to the letter.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { expandSql } from '../query/sql.mjs';

const range = { from: 1_700_000_000_000, to: 1_700_003_600_500, intervalMs: 90_500 };
const one = (value) => ({ values: [value], all: false, multi: false });
const several = (...values) => ({ values, all: false, multi: true });
const all = (...values) => ({ values, all: true, multi: true });

const expand = (sql, variables = {}) => expandSql(sql, { variables, range });

test('macros of time become ClickHouse\'s functions', () => {
  for (const [macro, sql] of [
    ['$__fromTime', 'toDateTime(1700000000)'],
    ['$__toTime', 'toDateTime(1700003600)'],
    ['$__toTime_ms', 'fromUnixTimestamp64Milli(1700003600500)'],
    ['$__interval_s', '90'],
    ['$__timeFilter(at)', 'at >= toDateTime(1700000000) AND at <= toDateTime(1700003600)'],
    [
      '$__timeFilter_ms(at)',
      'at >= fromUnixTimestamp64Milli(1700000000000) AND at <= fromUnixTimestamp64Milli(1700003600500)',
    ],
    ['$__dateFilter(day)', "day >= toDate('2023-11-14') AND day <= toDate('2023-11-14')"],
    ['$__timeInterval(hour)', 'toStartOfInterval(toDateTime(hour), INTERVAL 90 second)'],
    ['$__timeInterval_ms(at)', 'toStartOfInterval(toDateTime64(at, 3), INTERVAL 90500 millisecond)'],
    ['$__timeInterval(f(a, (b)))', 'toStartOfInterval(toDateTime(f(a, (b))), INTERVAL 90 second)'],
  ]) {
    assert.equal(expand(`SELECT ${macro} AS x`), `SELECT ${sql} AS x`);
  }
});

test('a condition holds for what is chosen, and for everything where all is', () => {
  const sql = 'WHERE $__conditionalAll(goal IN (${goal:csv}), $goal) AND x';
  assert.equal(expand(sql, { goal: several('1', '2') }), 'WHERE goal IN (1,2) AND x');
  assert.equal(expand(sql, { goal: all('1', '2') }), 'WHERE 1=1 AND x');
  assert.equal(expand(sql, { goal: several('') }), 'WHERE 1=1 AND x');
  const commas = '$__conditionalAll(f(a, b) = 1, ${goal})';
  assert.equal(expand(commas, { goal: several('1') }), 'f(a, b) = 1');
});

test('variables are formatted as they say, and quotes stay quoted', () => {
  const hostile = several("x'; DROP", 'y');
  assert.equal(expand('${v:singlequote}', { v: hostile }), "'x\\'; DROP','y'");
  assert.equal(expand('${v:sqlstring}', { v: hostile }), "'x''; DROP','y'");
  assert.equal(expand('${v:csv}', { v: several('1', '2') }), '1,2');
  assert.equal(expand('$v $v2', { v: one('3'), v2: several('a', 'b') }), "3 'a','b'");
});

test('what is not known is an error that names it', () => {
  for (const [sql, named] of [
    ['$nobody', /\$nobody/],
    ['${v:html}', /\$\{v:html\}/],
    ['$__unixEpochFilter(x)', /\$__unixEpochFilter/],
    ['$__timeFilter(x', /\$__timeFilter is not closed/],
    ['$__timeInterval AS t', /\$__timeInterval without arguments/],
    ['$__conditionalAll(a = 1, $nobody)', /\$nobody/],
  ]) {
    assert.throws(() => expand(sql, { v: one('1') }), named);
  }
});
