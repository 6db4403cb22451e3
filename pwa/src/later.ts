/** After the first picture: sending, the service worker, the manifest, asking for storage that lasts. */
import { h } from './screen/dom';
import type { App } from './screen/view';

interface SyncRegistration extends ServiceWorkerRegistration {
  sync?: { register(tag: string): Promise<void> };
}

/** Send on open, on return, on reconnect. Saving sends by itself; nothing relies on the background. */
function sendWhenever(app: App): void {
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) return void app.finish('hide');
    // The day may have changed while the page slept.
    app.changed();
    void app.finish('return');
  });
  window.addEventListener('online', () => void app.finish('reconnect'));
  void app.finish('open');
}

/** Ask the browser to keep our data, once something worth keeping is there. Chrome decides without a question. */
function keepStorage(app: App): void {
  let asked = false;
  app.device.subscribe(() => {
    if (asked || !app.state().registers.size || !navigator.storage || !navigator.storage.persist) return;
    asked = true;
    navigator.storage.persist().catch((error) => console.error(error));
  });
}

/** Never in school hours, never with work that is not sent. */
function mayUpdate(app: App): boolean {
  const hour = app.device.msSinceMidnight(app.device.today()) / 36e5;
  return !app.unsaved && !app.state().pending && (hour < 7 || hour >= 15);
}

function serviceWorker(app: App): void {
  const { serviceWorker: container } = navigator;
  // Absent on plain http and in some private modes; everything but the offline start works without it.
  if (!container) return;
  let asked = false;
  container.register('sw.js').then((registration: SyncRegistration) => {
    let putOff = false;
    const offer = (): void => {
      const { waiting } = registration;
      const was = app.update;
      app.update = waiting && container.controller && !putOff && mayUpdate(app)
        ? {
            now() {
              asked = true;
              waiting.postMessage('take-over');
            },
            later() {
              putOff = true;
              offer();
            },
          }
        : null;
      if (!was !== !app.update) app.changed();
    };
    app.device.subscribe(offer);
    offer();
    registration.addEventListener('updatefound', () => {
      const coming = registration.installing;
      if (coming) coming.addEventListener('statechange', offer);
    });
    // Refused in some modes: a bonus only, and the page sends anyway.
    app.sendLater = () => registration.sync && registration.sync.register('send').catch((error) => console.info(error));
  }, (error) => console.error(error));
  container.addEventListener('message', (event) => event.data === 'send' && void app.finish('background'));
  container.addEventListener('controllerchange', () => {
    // Only when the user asked for the new release, and only when no tap is on its way.
    const reload = (): void => { app.unsaved ? setTimeout(reload, 50) : location.reload(); };
    if (asked) reload();
  });
}

export function afterwards(app: App): void {
  keepStorage(app);
  sendWhenever(app);
  serviceWorker(app);
  for (const [rel, href] of [['manifest', 'manifest.webmanifest'], ['icon', 'icon.svg']]) document.head.appendChild(h('link', { rel, href }));
}
