// Holds dashboards to the registries of Grafana's own @grafana/data: what a dashboard names and Grafana does not know is
// silently shown another way there. Prints what is wrong, one line each; ends with 1 if anything is.
//
//   node registries.mjs DASHBOARD.json …

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename } from 'node:path';
import { JSDOM } from 'jsdom';

// @grafana/data looks for a browser as soon as it is loaded.
const dom = new JSDOM('<!doctype html>', { url: 'http://localhost/' });
for (const name of ['window', 'document', 'navigator', 'location', 'localStorage', 'DOMParser', 'Element', 'HTMLElement', 'Node']) {
  Object.defineProperty(globalThis, name, { value: dom.window[name], configurable: true, writable: true });
}
const grafana = createRequire(import.meta.url)('@grafana/data');

const units = new Set(grafana.getValueFormats().flatMap((group) => group.submenu.map((unit) => unit.value)));
const transformers = new Set(Object.values(grafana.standardTransformers).map((transformer) => transformer.id));
// The options of a field that every panel knows; those of one kind of panel are below `custom`.
const properties = new Set([
  'color', 'decimals', 'description', 'displayName', 'filterable', 'links', 'mappings', 'max', 'min', 'noValue',
  'thresholds', 'unit', 'custom',
]);
const wrong = [];

for (const path of process.argv.slice(2)) {
  const dashboard = JSON.parse(readFileSync(path, 'utf8'));
  for (const panel of dashboard.panels.filter((panel) => panel.type !== 'row')) {
    const say = (what) => wrong.push(`${basename(path)}: ${panel.title}: ${what}`);
    const { defaults, overrides } = panel.fieldConfig;
    fieldOptions(defaults, say);
    for (const { matcher, properties: list } of overrides) {
      if (!grafana.fieldMatchers.getIfExists(matcher.id)) say(`no matcher of fields is called ${matcher.id}`);
      fieldOptions(Object.fromEntries(list.map(({ id, value }) => [id, value])), say);
    }
    const { reduceOptions, legend } = panel.options;
    for (const calc of [...(reduceOptions?.calcs ?? []), ...(legend?.calcs ?? [])]) {
      if (!grafana.fieldReducers.getIfExists(calc)) say(`no reducer is called ${calc}`);
    }
    for (const { id } of panel.transformations ?? []) {
      if (!transformers.has(id)) say(`no transformation is called ${id}`);
    }
  }
}

function fieldOptions(options, say) {
  for (const [name, value] of Object.entries(options)) {
    if (!properties.has(name) && !name.startsWith('custom.')) say(`no option of a field is called ${name}`);
    if (name === 'unit' && !units.has(value)) say(`no unit is called ${value}`);
    if (name === 'color' && !grafana.fieldColorModeRegistry.getIfExists(value.mode)) say(`no way to colour is called ${value.mode}`);
    if (name === 'thresholds' && value.steps[0].value !== null) say('the first threshold has a value: below it there is no colour');
    if (name === 'mappings' && value.some((mapping) => !Object.values(grafana.MappingType).includes(mapping.type))) say('a mapping of no known type');
  }
}

console.log(wrong.join('\n'));
process.exitCode = wrong.length > 0 ? 1 : 0;
