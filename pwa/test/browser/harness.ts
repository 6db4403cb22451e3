/** The core on a bare page, for tests that drive it from outside: everything hangs on `window.hudur`. */
import { openDevice } from '../../src/core/device';
import { readTable } from '../../src/core/pages';
import { Store } from '../../src/core/store';
import { rowsOfFile } from '../../src/core/wire';

/** Open the log, tell how many rows it has, then append taps for ever and tell of each once it is durable. */
async function capture(): Promise<void> {
  const tell = (path: string, body?: Uint8Array): Promise<Response> => fetch(path, { method: 'POST', body: body as BodyInit });
  let rows = 0;
  const store = new Store(indexedDB, () => rows++);
  await store.open();
  await tell(`/opened?rows=${rows}&mode=${store.mode}`, store.bytes());
  for (let n = rows + 1; ; n++) {
    // Every tenth row spills to overflow pages, as a frame does.
    const body = new Uint8Array(n % 10 ? 30 : 9000).fill(n);
    await store.write(() => ({ rows: [{ kind: 'tap', register: 'c/2026-11-22/day', atMs: n, body }] }));
    if (store.mode === 'durable') navigator.sendBeacon('/durable?row=' + n);
  }
}

Object.assign(window, { hudur: { openDevice, Store, readTable, rowsOfFile, capture } });
if (location.hash === '#capture') void capture();
