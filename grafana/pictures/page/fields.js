// Field configuration: what a panel's JSON says of its fields, applied by @grafana/data.
//
// Grafana's registries of field properties are filled by its application, so they are filled here: each property with the
// processor that @grafana/data has for it. A property that nothing is known of is an error, not a difference in the picture.

import {
  applyFieldOverrides,
  booleanOverrideProcessor,
  cacheFieldDisplayNames,
  dataLinksOverrideProcessor,
  displayNameOverrideProcessor,
  fieldMatchers,
  FieldType,
  identityOverrideProcessor,
  numberOverrideProcessor,
  PanelPlugin,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
  stringOverrideProcessor,
  thresholdsOverrideProcessor,
  unitOverrideProcessor,
  valueMappingsOverrideProcessor,
} from '@grafana/data';

const isNumber = ({ type }) => type === FieldType.number;
const always = () => true;

const STANDARD = [
  ['displayName', displayNameOverrideProcessor, always, { expandTemplateVars: true }],
  ['unit', unitOverrideProcessor, always],
  ['min', numberOverrideProcessor, isNumber],
  ['max', numberOverrideProcessor, isNumber],
  ['fieldMinMax', booleanOverrideProcessor, isNumber],
  ['decimals', numberOverrideProcessor, isNumber],
  ['thresholds', thresholdsOverrideProcessor, always],
  ['mappings', valueMappingsOverrideProcessor, always],
  ['noValue', stringOverrideProcessor, always],
  ['links', dataLinksOverrideProcessor, always],
  ['color', identityOverrideProcessor, always],
  ['filterable', booleanOverrideProcessor, always],
];

/** Each visualisation's own properties, and Grafana's defaults of them. */
const CUSTOM = {
  stat: {},
  bargauge: {},
  timeseries: {
    drawStyle: 'line',
    lineInterpolation: 'linear',
    lineWidth: 1,
    lineStyle: { fill: 'solid' },
    fillOpacity: 0,
    fillBelowTo: undefined,
    gradientMode: 'none',
    barAlignment: 0,
    barWidthFactor: 0.6,
    spanNulls: false,
    insertNulls: false,
    showPoints: 'auto',
    pointSize: 5,
    stacking: { mode: 'none', group: 'A' },
    transform: undefined,
    axisPlacement: 'auto',
    axisLabel: '',
    axisWidth: undefined,
    axisSoftMin: undefined,
    axisSoftMax: undefined,
    axisColorMode: 'text',
    axisBorderShow: false,
    axisGridShow: undefined,
    axisCenteredZero: false,
    scaleDistribution: { type: 'linear' },
    thresholdsStyle: { mode: 'off' },
    hideFrom: { tooltip: false, viz: false, legend: false },
  },
  table: {
    align: 'auto',
    width: undefined,
    minWidth: undefined,
    cellOptions: { type: 'auto' },
    filterable: false,
    inspect: false,
    wrapHeaderText: false,
    footer: undefined,
    hidden: undefined,
    hideFrom: undefined,
  },
};

export function prepareRegistries() {
  standardFieldConfigEditorRegistry.setInit(() =>
    STANDARD.map(([id, process, shouldApply, settings]) => ({ id, path: id, name: id, process, shouldApply, settings })),
  );
  standardTransformersRegistry.setInit(() =>
    Object.values(standardTransformers)
      .filter(({ id }, index, all) => all.findIndex((other) => other.id === id) === index)
      .map((transformer) => ({ id: transformer.id, name: transformer.name, transformation: async () => transformer })),
  );
}

const plugins = {};

function pluginOf(type) {
  if (!CUSTOM[type]) throw new Error(`nothing is known of panels of the type ${type}`);
  plugins[type] ??= new PanelPlugin(() => null).useFieldConfig({
    useCustomConfig: (builder) => {
      for (const [id, defaultValue] of Object.entries(CUSTOM[type])) {
        builder.addCustomEditor({
          id,
          path: id,
          name: id,
          defaultValue,
          process: identityOverrideProcessor,
          shouldApply: always,
        });
      }
    },
  });
  return plugins[type];
}

/** The frames with each field's configuration, display processor and colour. */
export function overridden(panel, frames, { theme, variables, range }) {
  const plugin = pluginOf(panel.type);
  const registry = plugin.fieldConfigRegistry;
  const { defaults, overrides } = structuredClone(panel.fieldConfig);
  // JSON has no infinity for the first step's start.
  for (const step of defaults.thresholds?.steps ?? []) step.value ??= -Infinity;
  for (const { matcher, properties } of overrides) {
    fieldMatchers.get(matcher.id);
    for (const { id } of properties) registry.get(id);
  }
  for (const id of Object.keys(defaults.custom ?? {})) registry.get(`custom.${id}`);
  const custom = { ...plugin.fieldConfigDefaults.defaults.custom, ...defaults.custom };
  const fieldConfig = { defaults: { ...defaults, custom }, overrides };
  const options = { fieldConfig, fieldConfigRegistry: registry, theme, timeZone: 'utc' };
  const replaceVariables = interpolator(variables, range);
  const done = applyFieldOverrides({ ...options, data: frames, replaceVariables }).map(withoutOldNames);
  cacheFieldDisplayNames(done);
  return done;
}

/** What Grafana's migrations rename. */
function withoutOldNames(frame) {
  for (const { config } of frame.fields) {
    if (config.custom?.hidden) config.custom.hideFrom = { ...config.custom.hideFrom, viz: true };
  }
  return frame;
}

/** `${__field.labels.x}` and the dashboard's variables, in names and links. */
export function interpolator(variables, range) {
  return (text, scopedVars) => {
    const field = scopedVars?.__dataContext?.value?.field;
    return String(text).replace(/\$\{([\w.]+)(?::\w+)?\}/g, (whole, path) => {
      if (path.startsWith('__field.labels.')) return field?.labels?.[path.slice('__field.labels.'.length)] ?? '';
      if (path === '__field.name') return field?.name ?? '';
      if (path === '__url_time_range') return `from=${range.from.valueOf()}&to=${range.to.valueOf()}`;
      return variables[path]?.values.join(',') ?? whole;
    });
  };
}
