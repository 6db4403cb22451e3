/** Start: words, device, page. What must not delay the first tap is in `later.ts`. */
import { openDevice } from './core/device';
import { loadWords, t } from './i18n';
import { startApp } from './screen/app';
import { note, refill } from './screen/dom';

async function start(): Promise<void> {
  const [device] = await Promise.all([openDevice(), loadWords().catch((error) => console.error(error))]);
  const app = startApp(device);
  performance.mark('usable');
  const later = (): void => app.lazily(import('./later'), (module) => module.afterwards(app));
  // On a phone that is not enrolled nothing shares the link with what enrolment needs.
  const next = device.state.identity ? later : () => void device.prepare().then(later, later);
  // The first picture goes before: a frame and a task later nothing of this can delay it.
  requestAnimationFrame(() => setTimeout(next));
}

start().catch((error) => {
  console.error(error);
  refill(document.querySelector('main')!, note(t.loadFailed, error.message, null, true));
});
