// ClickHouse's answers as the frames that the plugin would make of them.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { toFrame } from '../query/clickhouse.mjs';

const answer = (columns, ...data) => ({ meta: Object.entries(columns).map(([name, type]) => ({ name, type })), data });
const series = { refId: 'A', format: 0 };
const table = { refId: 'A', format: 1 };

test('a column is a field of the type that ClickHouse says', () => {
  const columns = {
    at: "DateTime64(3, 'UTC')",
    day: 'Date',
    count: 'UInt64',
    value: 'Nullable(Decimal(38, 6))',
    name: 'LowCardinality(Nullable(String))',
    yes: 'Bool',
    source: "Enum8('pixel' = 1)",
  };
  const frame = toFrame(
    answer(
      columns,
      ['1700000000.25', '2023-11-14', '18446744073709551615', '9.5', 'a', true, 'pixel'],
      [1700000001, '2023-11-15', 2, null, null, false, 'pixel'],
    ),
    table,
  );
  assert.equal(frame.length, 2);
  assert.deepEqual(
    frame.fields.map(({ name, type, values }) => [name, type, values]),
    [
      ['at', 'time', [1700000000250, 1700000001000]],
      ['day', 'time', [1699920000000, 1700006400000]],
      ['count', 'number', [18446744073709551615, 2]],
      ['value', 'number', [9.5, null]],
      ['name', 'string', ['a', null]],
      ['yes', 'boolean', [true, false]],
      ['source', 'string', ['pixel', 'pixel']],
    ],
  );
});

test('a time series with names is a field for each, in their order, with gaps', () => {
  const columns = { time: 'DateTime', source: 'String', conversions: 'UInt64' };
  const frame = toFrame(answer(columns, [10, 'mail', 1], [10, 'ads', 2], [20, 'ads', 3], [30, 'mail', 4]), series);
  assert.deepEqual(
    frame.fields.map(({ name, labels, values }) => [name, labels, values]),
    [
      ['time', undefined, [10000, 20000, 30000]],
      ['conversions', { source: 'ads' }, [2, 3, null]],
      ['conversions', { source: 'mail' }, [1, null, 4]],
    ],
  );
  assert.equal(frame.length, 3);
});

test('a time series without names stays as it is', () => {
  const frame = toFrame(answer({ time: 'DateTime', 'this period': 'UInt64' }, [10, 1], [20, 2]), series);
  assert.deepEqual(frame.fields[1].values, [1, 2]);
  assert.equal(frame.fields[1].labels, undefined);
});

test('what Grafana refuses as a time series is refused', () => {
  const columns = { time: 'DateTime', source: 'String', n: 'UInt64' };
  assert.throws(() => toFrame(answer(columns, [20, 'a', 1], [10, 'a', 1]), series), /order of time/);
  assert.throws(() => toFrame(answer({ source: 'String', n: 'UInt64' }, ['a', 1]), series), /column of times/);
  assert.throws(() => toFrame(answer({ time: 'DateTime', source: 'String' }, [1, 'a']), series), /column of numbers/);
  assert.throws(() => toFrame(answer({ time: 'Nullable(DateTime)', n: 'UInt64' }, [null, 1]), series), /null/);
});
