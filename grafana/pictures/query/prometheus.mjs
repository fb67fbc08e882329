// What is asked of Prometheus, and its answers as data frames: one for each series.

import { forPrometheus, replaceVariables } from './variables.mjs';

/** Prometheus gives 11,000 points of a series at most. */
const POINTS_MAX = 11_000;

/**
 * The call for a target: its path and parameters. `range` is {from, to, intervalMs}, in milliseconds; `scrapeMs` is the
 * data source's interval, below which points would say nothing new.
 */
export function request(target, { variables, range, scrapeMs }) {
  const { from, to } = range;
  const stepMs = Math.max(range.intervalMs, scrapeMs, Math.ceil((to - from) / POINTS_MAX));
  const query = expandPromql(target.expr, { variables, stepMs, scrapeMs, rangeMs: to - from });
  if (target.instant && !target.range) {
    return { path: 'query', parameters: { query, time: to / 1000 } };
  }
  const start = Math.floor(from / stepMs) * stepMs;
  const end = Math.floor(to / stepMs) * stepMs;
  return {
    path: 'query_range',
    parameters: { query, start: start / 1000, end: end / 1000, step: stepMs / 1000 },
    stepMs,
  };
}

export function expandPromql(expr, { variables, stepMs, scrapeMs, rangeMs }) {
  // A rate needs two samples in its window also where a scrape is late or lost: four intervals hold them.
  const rateMs = Math.max(stepMs + scrapeMs, 4 * scrapeMs);
  const seconds = Math.round(rangeMs / 1000);
  const text = replaceVariables(expr, variables, forPrometheus)
    .replaceAll('$__rate_interval_ms', String(rateMs))
    .replaceAll('$__rate_interval', duration(rateMs))
    .replaceAll('$__interval_ms', String(stepMs))
    .replaceAll('$__interval', duration(stepMs))
    .replaceAll('$__range_ms', String(rangeMs))
    .replaceAll('$__range_s', String(seconds))
    .replaceAll('$__range', `${seconds}s`);
  const left = text.match(/\$\w+|\$\{.*?\}/);
  if (left) throw new Error(`nothing is known of ${left[0]}: ${text}`);
  return text;
}

const duration = (ms) => (ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`);

/** The frames of an answer's `data`; `stepMs` of a range: a point that is missing is a gap. */
export function toFrames(data, { refId, legendFormat }, stepMs) {
  if (!['vector', 'matrix', 'scalar'].includes(data.resultType)) {
    throw new Error(`nothing is known of Prometheus' result type ${data.resultType}`);
  }
  const result = data.resultType === 'scalar' ? [{ metric: {}, value: data.result }] : data.result;
  return result.map(({ metric, value, values }) => {
    const points = values ?? [value];
    const name = seriesName(metric, legendFormat);
    return {
      refId,
      name,
      length: points.length,
      fields: [
        {
          name: 'Time',
          type: 'time',
          config: stepMs ? { interval: stepMs } : {},
          values: points.map(([at]) => at * 1000),
        },
        {
          name: 'Value',
          type: 'number',
          labels: metric,
          config: { displayNameFromDS: name },
          values: points.map(([, text]) => number(text)),
        },
      ],
    };
  });
}

const number = (text) => Number(text.replace('Inf', 'Infinity'));

function seriesName(metric, legendFormat) {
  if (legendFormat && legendFormat !== '__auto') {
    return legendFormat.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => metric[label] ?? label);
  }
  const { __name__: name = '', ...labels } = metric;
  const pairs = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
  if (legendFormat === '__auto' && pairs.length === 1) return Object.values(labels)[0];
  return pairs.length > 0 ? `${name}{${pairs.join(', ')}}` : name;
}

/** The label and the series that `label_values(series, label)` asks for. */
export function labelValues(query) {
  const found = query.match(/^label_values\(\s*(?:(.+?)\s*,\s*)?(\w+)\s*\)$/);
  if (!found) throw new Error(`nothing is known of the variable's query ${query}`);
  return { series: found[1], label: found[2] };
}
