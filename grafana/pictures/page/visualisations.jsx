// The visualisations, of Grafana's own components. Each gets {width, height, options, frames, theme, …}.

import { FieldType, getDisplayValueAlignmentFactors, getFieldDisplayValues, VizOrientation } from '@grafana/data';
import { BarGauge, BigValue, TimeSeries, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { TableCellHeight } from '@grafana/schema';

export const VISUALISATIONS = { stat: Stat, bargauge: Bars, timeseries: Chart, table: Rows };

const UTC = 'utc';

function Stat({ width, height, options, frames, theme, fieldConfig, interpolate }) {
  const values = reduced({ options, frames, theme, fieldConfig, interpolate });
  return (
    <VizRepeater
      getValues={() => values}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width, height, alignmentFactors, count }) => (
        <BigValue
          value={value.display}
          count={count}
          sparkline={value.sparkline}
          colorMode={options.colorMode}
          graphMode={options.graphMode}
          justifyMode={options.justifyMode}
          textMode={options.textMode}
          text={options.text}
          disableWideLayout={!options.wideLayout}
          alignmentFactors={alignmentFactors}
          width={width}
          height={height}
          theme={theme}
        />
      )}
      source={frames}
      renderCounter={0}
      width={width}
      height={height}
      orientation={options.orientation ?? VizOrientation.Auto}
      itemSpacing={3}
      autoGrid
    />
  );
}

function Bars({ width, height, options, frames, theme, fieldConfig, interpolate }) {
  const values = reduced({ options, frames, theme, fieldConfig, interpolate });
  const automatic = options.sizing !== 'manual';
  return (
    <VizRepeater
      getValues={() => values}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width, height, orientation, alignmentFactors }) => (
        <BarGauge
          value={value.display}
          field={value.field}
          display={value.view?.getFieldDisplayProcessor(value.colIndex)}
          displayMode={options.displayMode}
          valueDisplayMode={options.valueMode}
          namePlacement={options.namePlacement}
          showUnfilled={options.showUnfilled}
          text={options.text}
          orientation={orientation}
          alignmentFactors={alignmentFactors}
          itemSpacing={10}
          lcdCellWidth={12}
          width={width}
          height={height}
          theme={theme}
        />
      )}
      source={frames}
      renderCounter={0}
      width={width}
      height={height}
      minVizWidth={automatic ? 0 : options.minVizWidth}
      minVizHeight={automatic ? 0 : options.minVizHeight}
      maxVizHeight={options.maxVizHeight}
      orientation={options.orientation}
      itemSpacing={10}
    />
  );
}

function reduced({ options, frames, theme, fieldConfig, interpolate }) {
  return getFieldDisplayValues({
    fieldConfig,
    reduceOptions: options.reduceOptions,
    replaceVariables: interpolate,
    theme,
    data: frames,
    sparkline: options.graphMode !== 'none',
    timeZone: UTC,
  });
}

function Chart({ width, height, options, frames, range, annotations }) {
  return (
    <TimeSeries
      width={width}
      height={height}
      frames={frames.map(finite)}
      timeRange={range}
      timeZone={UTC}
      legend={options.legend}
      options={options}
      structureRev={1}
    >
      {(builder) => {
        builder.addHook('draw', (plot) => annotations.forEach((mark) => drawMark(plot, mark)));
        return null;
      }}
    </TimeSeries>
  );
}

/** What is no number has no place on a chart. */
function finite(frame) {
  const fields = frame.fields.map((field) =>
    field.type === FieldType.number
      ? { ...field, values: field.values.map((value) => (Number.isFinite(value) ? value : null)) }
      : field,
  );
  return { ...frame, fields };
}

/** An annotation, as Grafana draws it: a dashed line where it begins, and a veil until it ends. */
function drawMark({ ctx, bbox, ...plot }, { color, from, to }) {
  const ratio = window.devicePixelRatio;
  const [left, right] = [from, to].map((at) => plot.valToPos(at, 'x', true));
  if (right < bbox.left || left > bbox.left + bbox.width) return;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.strokeStyle = ctx.fillStyle = color;
  ctx.globalAlpha = 0.1;
  ctx.fillRect(left, bbox.top, right - left, bbox.height);
  ctx.globalAlpha = 1;
  ctx.lineWidth = 2 * ratio;
  ctx.setLineDash([5 * ratio, 5 * ratio]);
  ctx.beginPath();
  ctx.moveTo(left, bbox.top);
  ctx.lineTo(left, bbox.top + bbox.height);
  ctx.stroke();
  ctx.restore();
}

function Rows({ width, height, options, frames, range, fieldConfig }) {
  return (
    <TableNG
      data={frames[0]}
      width={width}
      height={height}
      noHeader={!options.showHeader}
      showTypeIcons={options.showTypeIcons}
      cellHeight={options.cellHeight ?? TableCellHeight.Sm}
      frozenColumns={options.frozenColumns?.left}
      enablePagination={options.footer?.enablePagination}
      sortBy={options.sortBy}
      fieldConfig={fieldConfig}
      timeRange={range}
      resizable
    />
  );
}
