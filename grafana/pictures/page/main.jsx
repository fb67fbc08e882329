// The page that is photographed: one dashboard, with the answers of this moment.
//
// `window.drawn` becomes what the photographer waits for: the errors, none in a good picture.

import './page.css';

import { createRoot } from 'react-dom/client';
import { flushSync } from 'react-dom';
import { createTheme, ThemeContext } from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import { GlobalStyles, PortalContainer } from '@grafana/ui';

import { Dashboard } from './Dashboard.jsx';
import { prepareRegistries } from './fields.js';
import { load } from './load.js';

window.__grafana_public_path__ = '/public/';

const FONTS = ['400 14px Inter', '500 14px Inter', '400 14px "Roboto Mono"'];

async function main() {
  const { dashboard, settings } = await (await fetch('/drawing.json')).json();
  const theme = createTheme({ colors: { mode: settings.theme } });
  await initPluginTranslations('grafana-ui');
  prepareRegistries();
  const root = createRoot(document.getElementById('root'));
  const render = (content) =>
    flushSync(() =>
      root.render(
        <ThemeContext.Provider value={theme}>
          <GlobalStyles />
          {content}
          <PortalContainer />
        </ThemeContext.Provider>,
      ),
    );
  // Texts are measured before they are drawn: the styles name the fonts, and these are loaded first.
  render(null);
  await Promise.all(FONTS.map((font) => document.fonts.load(font)));
  const loaded = await load(dashboard, settings, theme);
  render(<Dashboard dashboard={dashboard} {...loaded} />);
  await settled();
  return loaded.errors;
}

/** Until the icons are there and nothing on the page has changed for a moment. */
function settled() {
  return new Promise((resolve) => {
    const quietMs = 500;
    let timer = setTimeout(resolve, quietMs);
    new MutationObserver(() => {
      clearTimeout(timer);
      timer = setTimeout(resolve, quietMs);
    }).observe(document.body, { subtree: true, childList: true, attributes: true });
  });
}

window.addEventListener('error', ({ message }) => {
  window.drawn ??= [`the page: ${message}`];
});
main().then(
  (errors) => {
    window.drawn ??= errors;
  },
  (error) => {
    window.drawn ??= [`the page: ${error.stack}`];
  },
);
