// Variables in texts, as Grafana's browser side replaces them.
//
// A variable is {name, values, options, all, multi}: the values chosen (every option where all of them are).

const VARIABLE = /\$\{(\w+)(?::(\w+))?\}|\$(\w+)/g;

/** The names that Grafana defines itself; data sources replace them later. */
const isBuiltIn = (name) => name.startsWith('__');

const FORMATS = {
  csv: (values) => values.join(','),
  raw: (values) => values.join(','),
  singlequote: (values) => values.map((value) => `'${value.replaceAll("'", "\\'")}'`).join(','),
  sqlstring: (values) => values.map((value) => `'${value.replaceAll("'", "''")}'`).join(','),
  regex: (values) => {
    const escaped = values.map((value) => value.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'));
    return escaped.length === 1 ? escaped[0] : `(${escaped.join('|')})`;
  },
};

/**
 * Replaces `$name`, `${name}` and `${name:format}`; `plain` formats what names no format.
 * Grafana leaves a name that it does not know; here nothing can be asked with it, so it is an error.
 */
export function replaceVariables(text, variables, plain = FORMATS.csv) {
  return text.replace(VARIABLE, (whole, braced, format, bare) => {
    const name = braced ?? bare;
    if (isBuiltIn(name)) return whole;
    const variable = variables[name];
    if (!variable) throw new Error(`nothing is known of the variable ${whole}`);
    if (!format) return plain(variable.values, variable);
    if (!FORMATS[format]) throw new Error(`nothing is known of the format of ${whole}`);
    return FORMATS[format](variable.values, variable);
  });
}

/** What Prometheus' data source does with variables: several become a regular expression, one stays as it is. */
export const forPrometheus = (values, { multi, all }) => {
  const escape = (value) => value.replaceAll('\\', '\\\\').replace(/[$^*{}[\]'+?.()|]/g, '\\\\$&');
  if (!multi && !all) return values.join(',').replaceAll('\\', '\\\\').replaceAll("'", "\\\\'");
  return values.length === 1 ? escape(values[0]) : `(${values.map(escape).join('|')})`;
};

/** What the ClickHouse plugin does with variables: several are quoted, one is spliced in. */
export const forClickHouse = (values, { multi, all }) =>
  multi || all ? values.map((value) => `'${value}'`).join(',') : values.join(',');
