// A dashboard as Grafana lays it out: what is chosen, then rows and panels in their grid.

import { css } from '@emotion/css';
import { rangeUtil } from '@grafana/data';
import { Icon, PanelChrome, useStyles2, useTheme2 } from '@grafana/ui';

import { interpolator } from './fields.js';
import { gridHeight, MARGIN, panelBox, WIDTH } from './layout.js';
import { VISUALISATIONS } from './visualisations.jsx';

export function Dashboard({ dashboard, range, variables, panels, annotations }) {
  const styles = useStyles2(getStyles);
  return (
    <main className={styles.page}>
      <header className={styles.header}>
        <h1 className={styles.title}>{dashboard.title}</h1>
        {Object.values(variables)
          .filter(({ hide }) => hide !== 2)
          .map((variable) => (
            <Chosen key={variable.name} name={variable.label} value={variable.text} />
          ))}
        <span className={styles.time}>
          <Icon name="clock-nine" />
          {rangeUtil.describeTimeRange(range.raw)}
          <span className={styles.zone}>UTC</span>
        </span>
      </header>
      <div className={styles.grid} style={{ height: gridHeight(dashboard.panels) }}>
        {dashboard.panels.map((panel) => (
          <div key={panel.id} className={styles.cell} style={panelBox(panel.gridPos)}>
            {panel.type === 'row' ? (
              <h2 className={styles.row}>
                <Icon name={panel.collapsed ? 'angle-right' : 'angle-down'} />
                {panel.title}
              </h2>
            ) : (
              <Panel
                panel={panel}
                frames={panels[panel.id]}
                range={range}
                annotations={annotations}
                interpolate={interpolator(variables, range)}
              />
            )}
          </div>
        ))}
      </div>
    </main>
  );
}

function Chosen({ name, value }) {
  const styles = useStyles2(getStyles);
  return (
    <span className={styles.variable}>
      <span className={styles.name}>{name}</span>
      <span className={styles.value}>
        {value}
        <Icon name="angle-down" />
      </span>
    </span>
  );
}

function Panel({ panel, frames, ...rest }) {
  const theme = useTheme2();
  const { width, height } = panelBox(panel.gridPos);
  const Visualisation = VISUALISATIONS[panel.type];
  return (
    <PanelChrome
      width={width}
      height={height}
      title={panel.title}
      description={panel.description}
      displayMode={panel.transparent ? 'transparent' : 'default'}
    >
      {(innerWidth, innerHeight) =>
        frames.length > 0 && (
          <Visualisation
            width={innerWidth}
            height={innerHeight}
            options={panel.options}
            fieldConfig={panel.fieldConfig}
            frames={frames}
            theme={theme}
            {...rest}
          />
        )
      }
    </PanelChrome>
  );
}

const getStyles = (theme) => ({
  page: css({ width: WIDTH, padding: MARGIN, background: theme.colors.background.canvas }),
  header: css({ display: 'flex', alignItems: 'center', gap: theme.spacing(1), marginBottom: theme.spacing(2) }),
  title: css({ ...theme.typography.h4, margin: 0, marginRight: theme.spacing(2), whiteSpace: 'nowrap' }),
  variable: css({ display: 'flex', height: 32, lineHeight: '30px', border: `1px solid ${theme.colors.border.weak}` }),
  name: css({
    padding: theme.spacing(0, 1),
    background: theme.colors.background.secondary,
    fontSize: theme.typography.bodySmall.fontSize,
    fontWeight: theme.typography.fontWeightMedium,
  }),
  value: css({
    display: 'flex',
    alignItems: 'center',
    gap: theme.spacing(0.5),
    padding: theme.spacing(0, 1),
    background: theme.components.input.background,
  }),
  time: css({ display: 'flex', alignItems: 'center', gap: theme.spacing(1), marginLeft: 'auto' }),
  zone: css({ color: theme.colors.warning.text, fontSize: theme.typography.bodySmall.fontSize }),
  grid: css({ position: 'relative' }),
  cell: css({ position: 'absolute' }),
  row: css({
    ...theme.typography.h6,
    display: 'flex',
    alignItems: 'center',
    gap: theme.spacing(1),
    height: 30,
    margin: 0,
  }),
});
