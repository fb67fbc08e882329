// Everything that a dashboard shows: variables, then the answers to each panel's questions, then annotations.

import { lastValueFrom } from 'rxjs';
import { dateTime, dateMath, rangeUtil, standardTransformersRegistry, toDataFrame, transformDataFrame } from '@grafana/data';

import { PARAMETERS, toFrame } from '../query/clickhouse.mjs';
import { labelValues, request, toFrames } from '../query/prometheus.mjs';
import { expandSql } from '../query/sql.mjs';
import { overridden } from './fields.js';
import { panelBox, panelsOf } from './layout.js';

const CLICKHOUSE = 'grafana-clickhouse-datasource';
const PROMETHEUS = 'prometheus';

/** {range, variables, panels: frames by id, annotations, errors}. An error names its panel. */
export async function load(dashboard, settings, theme) {
  const range = timeRange(settings.time ?? dashboard.time, settings.now);
  const context = { settings, range, theme, variables: {} };
  for (const variable of dashboard.templating.list) {
    context.variables[variable.name] = await choose(variable, context);
  }
  const errors = [];
  const panels = {};
  await Promise.all(
    panelsOf(dashboard).map(async (panel) => {
      try {
        panels[panel.id] = await framesOf(panel, context);
        if (!shows(panels[panel.id])) throw new Error('it has nothing to show');
      } catch (error) {
        panels[panel.id] ??= [];
        errors.push(`${dashboard.title}: ${panel.title}: ${error.message}`);
      }
    }),
  );
  const annotations = [];
  for (const annotation of dashboard.annotations.list.filter(({ enable, builtIn }) => enable && !builtIn)) {
    try {
      annotations.push(...(await marks(annotation, context)));
    } catch (error) {
      errors.push(`${dashboard.title}: annotation ${annotation.name}: ${error.message}`);
    }
  }
  return { range, variables: context.variables, panels, annotations, errors };
}

function timeRange({ from, to }, now) {
  const at = (text, up) => dateTime(dateMath.toDateTime(text, { roundUp: up, timezone: 'utc', now: new Date(now) }));
  return { from: at(from, false), to: at(to, true), raw: { from, to } };
}

/** A variable with what is chosen: what the command says, else everything where that can be, else the first. */
async function choose(variable, context) {
  const { name, label, type, multi = false, includeAll = false, hide = 0 } = variable;
  const options = await optionsOf(variable, context);
  if (options.length === 0) throw new Error(`the variable ${name} has no values`);
  const wanted = context.settings.chosen[name];
  const found = wanted === undefined ? undefined : options.filter(({ text }) => text === wanted);
  if (found?.length === 0) throw new Error(`the variable ${name} has no value ${wanted}`);
  const all = includeAll && !found;
  const taken = all ? options : (found ?? options.slice(0, 1));
  const text = all ? 'All' : taken.map((option) => option.text).join(' + ');
  return { name, label: label || name, hide, multi, all, text, values: taken.map(({ value }) => value) };
}

async function optionsOf({ name, type, datasource, query, sort, regex }, context) {
  if (type === 'datasource') return [{ value: query, text: query === PROMETHEUS ? 'Prometheus' : 'ClickHouse' }];
  if (type !== 'query' || regex) throw new Error(`nothing is known of variables like ${name}`);
  const options = datasource.type === CLICKHOUSE ? await rows(query, context) : await labels(query, context);
  // 1: by text, 0: as they came.
  if (![0, 1, undefined].includes(sort)) throw new Error(`nothing is known of the order of ${name}`);
  return sort === 1 ? options.sort((one, other) => one.text.localeCompare(other.text)) : options;
}

async function rows(sql, context) {
  const answer = await clickhouse(expandSql(sql, { variables: context.variables, range: milliseconds(context.range, 1000) }));
  return answer.data.map(([value, text = value]) => ({ value: String(value), text: String(text) }));
}

async function labels(query, { range }) {
  const { series, label } = labelValues(query.query ?? query);
  const parameters = { start: range.from.valueOf() / 1000, end: range.to.valueOf() / 1000 };
  if (series) parameters['match[]'] = series;
  const values = await prometheus(`label/${label}/values`, parameters);
  return values.map((value) => ({ value, text: value }));
}

/** A panel's frames as its visualisation gets them. */
async function framesOf(panel, context) {
  const { width } = panelBox(panel.gridPos);
  const { intervalMs } = rangeUtil.calculateInterval(context.range, panel.maxDataPoints ?? width, panel.interval);
  const range = milliseconds(context.range, intervalMs);
  const targets = panel.targets.filter((target) => !target.hide);
  const answers = await Promise.all(targets.map((target) => ask(target, range, context)));
  const frames = answers.flat().map((frame) => toDataFrame(frame));
  const transformed = await transform(panel.transformations ?? [], frames);
  return overridden(panel, transformed, context);
}

async function ask(target, range, { variables, settings }) {
  if (target.datasource.type === CLICKHOUSE) {
    return [toFrame(await clickhouse(expandSql(target.rawSql, { variables, range })), target)];
  }
  if (target.datasource.type !== PROMETHEUS) throw new Error(`nothing is known of ${target.datasource.type}`);
  const { path, parameters, stepMs } = request(target, { variables, range, scrapeMs: settings.scrapeMs });
  return toFrames(await prometheus(path, parameters), target, stepMs);
}

function transform(transformations, frames) {
  const wanted = transformations.filter(({ disabled }) => !disabled);
  for (const { id } of wanted) standardTransformersRegistry.get(id);
  return lastValueFrom(transformDataFrame(wanted, frames));
}

/** Whether there is anything to see: a number, or a text. */
function shows(frames) {
  const isSeen = (value) => (typeof value === 'number' ? Number.isFinite(value) : value !== null && value !== '');
  return frames.some(({ fields }) => fields.some(({ type, values }) => type !== 'time' && values.some(isSeen)));
}

/** An annotation's places in time: {color, from, to}. */
async function marks({ iconColor, datasource, target, expr, step }, context) {
  const color = context.theme.visualization.getColorByName(iconColor);
  if (datasource.type === CLICKHOUSE) {
    const range = milliseconds(context.range, 1000);
    const frame = toFrame(await clickhouse(expandSql(target.rawSql, { variables: context.variables, range })), target);
    const time = frame.fields.find((field) => field.name === 'time');
    return time.values.map((at) => ({ color, from: at, to: at }));
  }
  const stepMs = rangeUtil.intervalToMs(step || '60s');
  const asked = { expr, range: true };
  const range = milliseconds(context.range, stepMs);
  const { path, parameters } = request(asked, { variables: context.variables, range, scrapeMs: context.settings.scrapeMs });
  const frames = toFrames(await prometheus(path, parameters), asked, stepMs);
  return frames.flatMap(({ fields: [time, value] }) => {
    const found = [];
    time.values.forEach((at, index) => {
      if (!value.values[index]) return;
      const last = found.at(-1);
      if (last && at - last.to <= stepMs) last.to = at;
      else found.push({ color, from: at, to: at });
    });
    return found;
  });
}

const milliseconds = ({ from, to }, intervalMs) => ({ from: from.valueOf(), to: to.valueOf(), intervalMs });

async function clickhouse(sql) {
  const parameters = new URLSearchParams(PARAMETERS);
  const response = await fetch(`/clickhouse?${parameters}`, { method: 'POST', body: sql });
  const text = await response.text();
  if (!response.ok) throw new Error(`${text.trim()} in ${sql}`);
  return JSON.parse(text);
}

async function prometheus(path, parameters) {
  const response = await fetch(`/prometheus/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const answer = await response.json();
  if (answer.status !== 'success') throw new Error(`${answer.error} in ${JSON.stringify(parameters)}`);
  return answer.data;
}
