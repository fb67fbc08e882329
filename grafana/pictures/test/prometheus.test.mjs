// What is asked of Prometheus, and its answers as Grafana's data source frames them.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { labelValues, request, toFrames } from '../query/prometheus.mjs';

const range = { from: 1_700_000_001_000, to: 1_700_000_181_000, intervalMs: 200 };
const ask = (target, variables = {}, scrapeMs = 5000) => request(target, { variables, range, scrapeMs });
const chosen = (...values) => ({ values, all: false, multi: true });

test('a range has steps of the scrapes, on multiples of them', () => {
  assert.deepEqual(ask({ expr: 'rate(x[$__rate_interval])', range: true }), {
    path: 'query_range',
    parameters: { query: 'rate(x[20s])', start: 1_700_000_000, end: 1_700_000_180, step: 5 },
    stepMs: 5000,
  });
});

test('an instant is the end of the range, and knows its length', () => {
  assert.deepEqual(ask({ expr: 'increase(x[$__range])', instant: true, range: false }), {
    path: 'query',
    parameters: { query: 'increase(x[180s])', time: 1_700_000_181 },
  });
});

test('variables become regular expressions, and their dots are dots', () => {
  const query = (variable) => ask({ expr: 'x{instance=~"$instance"}' }, { instance: variable }).parameters.query;
  assert.equal(query(chosen('tally:8081')), 'x{instance=~"tally:8081"}');
  assert.equal(query(chosen('10.0.0.1:1', 'b')), 'x{instance=~"(10\\\\.0\\\\.0\\\\.1:1|b)"}');
  assert.throws(() => query(undefined), /\$instance/);
  assert.throws(() => ask({ expr: 'x[$__auto]' }), /\$__auto/);
});

test('a series is a frame, named by its legend', () => {
  const matrix = {
    resultType: 'matrix',
    result: [{ metric: { __name__: 'x', code: 'a' }, values: [[1, '2.5'], [2, 'NaN'], [3, '+Inf']] }],
  };
  const [frame] = toFrames(matrix, { refId: 'A', legendFormat: '{{code}} of {{ nothing }}' }, 1000);
  assert.equal(frame.fields[1].config.displayNameFromDS, 'a of nothing');
  assert.deepEqual(frame.fields[0].values, [1000, 2000, 3000]);
  assert.equal(frame.fields[0].config.interval, 1000);
  assert.deepEqual(frame.fields[1].values, [2.5, NaN, Infinity]);
  const [plain] = toFrames(matrix, { refId: 'A' }, 1000);
  assert.equal(plain.name, 'x{code="a"}');
});

test('an instant\'s series has one point', () => {
  const vector = { resultType: 'vector', result: [{ metric: {}, value: [7, '1'] }] };
  const [frame] = toFrames(vector, { refId: 'A', legendFormat: 'ready' });
  assert.deepEqual([frame.length, frame.fields[1].values, frame.name], [1, [1], 'ready']);
  assert.throws(() => toFrames({ resultType: 'string', result: [] }, {}), /string/);
});

test('label_values is understood', () => {
  assert.deepEqual(labelValues('label_values(tally_ready, instance)'), { series: 'tally_ready', label: 'instance' });
  assert.deepEqual(labelValues('label_values(job)'), { series: undefined, label: 'job' });
  assert.throws(() => labelValues('query_result(up)'), /query_result/);
});
