/**
 * The service worker. Everything of one release lies in one cache; the start path asks the network for nothing.
 *
 * Invariants: a release is served whole (its cache is filled before it takes over, and an old release goes only when no
 * page uses it, or when the user asked); nothing under `/v1/` is ever answered from here.
 */
import type {} from './sw-types';

declare const __CACHE__: string;
declare const __FILES__: readonly string[];

const worker = self as unknown as HudurWorker;
const OURS = 'hudur-';

worker.addEventListener('install', (event) => {
  event.waitUntil(
    caches.open(__CACHE__).then((cache) =>
      // `no-cache` asks "has it changed?": what the browser still holds is not carried over the air twice.
      cache.addAll(__FILES__.map((path) => new Request(path, { cache: path.startsWith('m/') ? 'default' : 'no-cache' }))),
    ),
  );
  // Where the browser knows static routes, even a cold start does not wake this worker.
  if (event.addRoutes)
    event.waitUntil(
      event.addRoutes([
        { condition: { urlPattern: { pathname: '/' }, requestMode: 'navigate' }, source: { cacheName: __CACHE__ } },
        { condition: { urlPattern: { pathname: '/m/*' } }, source: { cacheName: __CACHE__ } },
      ]),
    );
});

worker.addEventListener('activate', (event) => {
  event.waitUntil(
    caches.keys()
      .then((names) => Promise.all(names.filter((name) => name.startsWith(OURS) && name !== __CACHE__).map((name) => caches.delete(name))))
      .then(() => worker.clients.claim()),
  );
});

worker.addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== location.origin) return;
  const path = url.pathname.slice(1);
  if (path && __FILES__.indexOf(path) < 0) return;
  event.respondWith(
    caches.open(__CACHE__)
      .then((cache) => cache.match(path || './'))
      .then((kept) => kept || fetch(request)),
  );
});

/** The page asks to be replaced by this release; it reloads itself when that happened. */
worker.addEventListener('message', (event) => {
  if (event.data === 'take-over') event.waitUntil(worker.skipWaiting());
});

/** Background Sync, a bonus: a page that is open but asleep gets the word to send. */
worker.addEventListener('sync', (event) => {
  event.waitUntil(worker.clients.matchAll({ type: 'window' }).then((pages) => pages.forEach((page) => page.postMessage('send'))));
});
