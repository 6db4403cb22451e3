/** The doors to the world: clocks, randomness, timers. Everything else of the core is a function of its inputs. */

export interface Ports {
  /** Wall clock, UTC, integer ms. */
  wallMs(): number;
  /** Monotonic clock, integer ms, from any origin. */
  monoMs(): number;
  random(bytes: number): Uint8Array;
  /** Uniform in [0, 1), for the back-off. */
  uniform(): number;
  /** Call back later; returns the way to cancel. */
  later(ms: number, then: () => void): () => void;
  fetch(url: string, init: RequestInit): Promise<Response>;
  /** `null`: this browser has no IndexedDB. */
  indexedDb: IDBFactory | null;
  /** Where the server is: prefix of `/v1/…`. */
  origin: string;
  online(): boolean;
  /** Whether somebody may be looking at the page. */
  visible(): boolean;
  /** Whether the lazy modules are on this phone, so that loading one needs no network. */
  modulesAtHand(): boolean;
  /** Slug of the link (`4g`, `2g`, …) when the browser tells. */
  link(): string | null;
  /** Run `work` unless another tab is uploading; resolves to whether it ran. */
  exclusively(work: () => Promise<void>): Promise<boolean>;
}

interface Connection {
  effectiveType?: string;
}

interface Locks {
  request(name: string, options: { ifAvailable: boolean }, work: (lock: unknown) => Promise<boolean>): Promise<boolean>;
}

/** The browser's own. Web Locks exist from Chrome 69; before, two tabs may both upload, which costs bytes and nothing else. */
export function browserPorts(): Ports {
  const nav = navigator as Navigator & { connection?: Connection };
  const locks = (navigator as { locks?: Locks }).locks;
  let indexedDb: IDBFactory | null = null;
  try {
    indexedDb = window.indexedDB || null;
  } catch (denied) {
    indexedDb = null; // some privacy modes throw on the mere mention: the log stays in memory, and the screen says so
  }
  return {
    wallMs: () => Date.now(),
    monoMs: () => Math.floor(performance.now()),
    random: (bytes) => crypto.getRandomValues(new Uint8Array(bytes)),
    uniform: () => Math.random(),
    later: (ms, then) => {
      const timer = setTimeout(then, ms);
      return () => clearTimeout(timer);
    },
    fetch: (url, init) => fetch(url, init),
    indexedDb,
    origin: '',
    online: () => navigator.onLine,
    visible: () => !document.hidden,
    modulesAtHand: () => !!(nav.serviceWorker && nav.serviceWorker.controller),
    link: () => (nav.connection && nav.connection.effectiveType) || null,
    exclusively: (work) =>
      locks
        ? locks.request('hudur-upload', { ifAvailable: true }, (lock) => (lock ? work().then(() => true) : Promise.resolve(false)))
        : work().then(() => true),
  };
}
