// ClickHouse's answers as data frames: the columns for a table, one field a series for a chart.

/** The format that `toFrame` reads, and the settings of it. */
export const PARAMETERS = {
  database: 'default',
  default_format: 'JSONCompact',
  date_time_output_format: 'unix_timestamp',
  max_execution_time: '64',
};

const FORMAT_TIME_SERIES = 0;

/** One query's answer; `format` is the target's. */
export function toFrame(answer, { refId, format }) {
  const fields = answer.meta.map(({ name, type }, column) => {
    const [kind, convert] = conversion(type);
    const values = answer.data.map((row) => (row[column] === null ? null : convert(row[column])));
    return { name, type: kind, values, config: {} };
  });
  const frame = { refId, fields, length: answer.data.length };
  return format === FORMAT_TIME_SERIES ? longToWide(frame) : frame;
}

function conversion(type) {
  const bare = type.replace(/^LowCardinality\((.*)\)$/, '$1').replace(/^Nullable\((.*)\)$/, '$1');
  if (/^(U?Int|Float|Decimal|BFloat)/.test(bare)) return ['number', Number];
  if (/^DateTime/.test(bare)) return ['time', (value) => Number(value) * 1000];
  if (/^Date/.test(bare)) return ['time', (value) => Date.parse(`${value}T00:00:00Z`)];
  if (bare === 'Bool') return ['boolean', Boolean];
  if (/^(String|FixedString|Enum|UUID|IPv)/.test(bare)) return ['string', String];
  return ['other', JSON.stringify];
}

/**
 * A row for each time and name becomes a series for each name, labelled with it, and null where it has no row. Series
 * stand in the order of their labels, which is what their colours go by. Rows out of order are an error, as in Grafana.
 */
function longToWide(frame) {
  const time = frame.fields.find((field) => field.type === 'time');
  if (!time) throw new Error('a time series without a column of times');
  if (time.values.includes(null)) throw new Error('a time series with a time that is null');
  if (time.values.some((at, row) => row > 0 && at < time.values[row - 1])) {
    throw new Error('the rows of a time series are not in the order of time');
  }
  const isLabel = ({ type }) => type === 'string' || type === 'boolean';
  const labels = frame.fields.filter(isLabel);
  const numbers = frame.fields.filter((field) => field !== time && !isLabel(field));
  if (numbers.length === 0) throw new Error('a time series without a column of numbers');
  if (labels.length === 0) return frame;

  const times = [...new Set(time.values)];
  const rowOf = new Map(times.map((at, row) => [at, row]));
  const series = new Map();
  time.values.forEach((at, row) => {
    const key = labels.map((field) => String(field.values[row] ?? ''));
    for (const number of numbers) {
      const id = JSON.stringify([number.name, ...key]);
      if (!series.has(id)) {
        const named = Object.fromEntries(labels.map((field, index) => [field.name, key[index]]));
        const values = new Array(times.length).fill(null);
        series.set(id, { key, field: { name: number.name, type: number.type, labels: named, values, config: {} } });
      }
      series.get(id).field.values[rowOf.get(at)] = number.values[row];
    }
  });
  const sorted = [...series.values()].sort((one, other) => compare(one.key, other.key));
  const fields = [{ ...time, values: times }, ...sorted.map(({ field }) => field)];
  return { ...frame, fields, length: times.length };
}

function compare(one, other) {
  const at = one.findIndex((text, index) => text !== other[index]);
  if (at < 0) return 0;
  return one[at] < other[at] ? -1 : 1;
}
