/**
 * What this browser calls the phone when nobody names it, so that the same phone is recognised when it comes back empty.
 *
 * A random mark is kept in two places outside the log's database: a browser that clears one of them often leaves the other.
 * It names no person and no device model; it goes nowhere but into the label, which the champion sees.
 */
const KEY = 'mark';
/** Not one of the service worker's caches, which go with their release. */
const CACHE = 'mark';
const ADDRESS = '/mark';
const MARK = /^[0-9a-f]{16}$/;
const MODEL_CHARS_MAX = 30;

export interface Places {
  storage: Pick<Storage, 'getItem' | 'setItem'> | null;
  caches: Pick<CacheStorage, 'open'> | null;
  random(bytes: number): Uint8Array;
  userAgent: string;
}

/** The browser's own places; any of them may be switched off, which throws on the mere mention. */
export function browserPlaces(): Places {
  const allowed = <T>(get: () => T): T | null => {
    try {
      return get() || null;
    } catch (switchedOff) {
      return null;
    }
  };
  return {
    storage: allowed(() => localStorage),
    caches: allowed(() => caches),
    random: (bytes) => crypto.getRandomValues(new Uint8Array(bytes)),
    userAgent: navigator.userAgent,
  };
}

/** 16 hex digits: those kept in either place, else new ones; afterwards both places have them, where they work. */
export async function installationMark({ storage, caches, random }: Places): Promise<string> {
  const cache = caches && (await caches.open(CACHE).catch((error: Error) => (console.info(error), null)));
  const kept = cache && (await cache.match(ADDRESS));
  const found = [storage && storage.getItem(KEY), kept ? await kept.text() : null].filter((mark) => mark && MARK.test(mark))[0];
  const mark = found || Array.from(random(8), (byte) => ('0' + byte.toString(16)).slice(-2)).join('');
  try {
    if (storage) storage.setItem(KEY, mark);
    if (cache) await cache.put(ADDRESS, new Response(mark));
  } catch (full) {
    console.info(full); // a bonus: without it a phone that comes back empty is only less surely recognised
  }
  return mark;
}

/** `SM-J260F ·3fa9`: the model as the browser tells it (new ones tell `K`), and the beginning of the mark. */
export async function defaultLabel(places: Places): Promise<string> {
  const system = (/\(([^)]*)\)/.exec(places.userAgent) || ['', ''])[1].split(';');
  const model = system[system.length - 1].replace(/Build\/.*/, '').trim().slice(0, MODEL_CHARS_MAX);
  return `${model} ·${(await installationMark(places)).slice(0, 4)}`.trim();
}
