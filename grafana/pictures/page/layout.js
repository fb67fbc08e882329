// Where panels stand: Grafana's grid of 24 columns.

/** Of the whole picture. */
export const WIDTH = 1600;
export const MARGIN = 16;

const COLUMNS = 24;
const CELL_HEIGHT = 30;
const GAP = 8;

/** Panels but for the headings of rows. A collapsed row keeps its panels to itself, as on the screen. */
export const panelsOf = (dashboard) => dashboard.panels.filter((panel) => panel.type !== 'row');

/** A panel's place in the grid, in pixels. */
export function panelBox({ x, y, w, h }) {
  const column = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) / COLUMNS;
  return {
    left: Math.round(x * (column + GAP)),
    top: y * (CELL_HEIGHT + GAP),
    width: Math.round(w * column + (w - 1) * GAP),
    height: h * CELL_HEIGHT + (h - 1) * GAP,
  };
}

/** The grid's height. */
export const gridHeight = (panels) =>
  Math.max(...panels.map(({ gridPos }) => panelBox(gridPos)).map(({ top, height }) => top + height));
