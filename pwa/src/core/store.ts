/**
 * The log and the cache in IndexedDB: one strict read-write transaction an append.
 *
 * Invariants:
 *   1. `write` resolves after the transaction's `complete`: with `durability: 'strict'` the rows are on the disk then.
 *   2. Inside the transaction the change counter of page 1 is compared with ours; rows of other tabs are read first. So a
 *      `build` sees every row that stands before its own, and no two tabs ever write the same page from different states.
 *   3. When storage fails, nothing is lost while the page lives: the rows *float* in memory, `mode` says `memory`, and the
 *      next transaction that works writes them first.
 *   4. Nothing is ever deleted.
 *
 * Everything inside the transaction is synchronous: an `await` there would end it.
 */
import { u32 } from './bytes';
import { LogFile, NewRow, Row } from './pages';

export interface Write {
  readonly rows: readonly NewRow[];
  /** What changes in the cache, in the same transaction. */
  readonly cache?: Readonly<Record<string, unknown>>;
}

export type Listener = (row: NewRow) => void;

interface Job {
  build: () => Write | null;
  done: (written: boolean) => void;
  failed: (cause: unknown) => void;
}

const OPEN_DEADLINE_MS = 4000; // a blocked database must not keep the teacher from the register
const STORES = ['pages', 'cache'];

export class Store {
  readonly file = new LogFile();
  readonly cache = new Map<string, unknown>();
  mode: 'durable' | 'memory' = 'memory';
  /** Why storage failed last, for the notice. */
  trouble: string | null = null;
  private db: IDBDatabase | null = null;
  private jobs: Job[] = [];
  private running = false;
  private floating: NewRow[] = [];
  private floatingCache: Record<string, unknown> = {};

  /** `onRow` is called for each row of the log, once, in the order in which this page learns of it. */
  constructor(
    private readonly factory: IDBFactory | null,
    private readonly onRow: Listener,
    private readonly name = 'hudur',
    private readonly later: (ms: number, then: () => void) => () => void = (ms, then) => {
      const timer = setTimeout(then, ms);
      return () => clearTimeout(timer);
    },
  ) {}

  /** Open and read everything. Never rejects: without storage the log lives in memory. */
  async open(): Promise<void> {
    try {
      await this.connect();
      await this.transaction('readonly', () => []);
      this.mode = 'durable';
    } catch (cause) {
      this.giveUp(cause);
    }
  }

  /**
   * Append what `build` returns, in one durable transaction; resolves to whether it returned anything.
   *
   * Calls that wait at the same moment share a transaction. `build` runs synchronously inside it and may read the fold.
   */
  write(build: () => Write | null): Promise<boolean> {
    return new Promise((done, failed) => {
      this.jobs.push({ build, done, failed });
      if (!this.running) this.drain();
    });
  }

  /** The database file, floating rows included. */
  bytes(): Uint8Array {
    if (!this.floating.length) return this.file.bytes();
    const copy = new LogFile();
    if (this.file.count) copy.load(this.file.pages);
    copy.commit(copy.append(this.floating));
    return copy.bytes();
  }

  private async drain(): Promise<void> {
    this.running = true;
    // One turn of the event loop's microtasks lets the taps of one gesture share a transaction.
    await null;
    while (this.jobs.length) {
      const jobs = this.jobs;
      this.jobs = [];
      const settled: (() => void)[] = [];
      const run = (): NewRow[] => this.runJobs(jobs, settled);
      try {
        if (!this.db) await this.connect();
        await this.transaction('readwrite', run);
        this.mode = 'durable';
      } catch (cause) {
        if (!settled.length) this.keepFloating(run());
        this.giveUp(cause);
      }
      settled.forEach((settle) => settle());
    }
    this.running = false;
  }

  /** Run the builders; their rows reach the fold at once, so that the next builder sees them. */
  private runJobs(jobs: Job[], settled: (() => void)[]): NewRow[] {
    const rows: NewRow[] = [];
    for (const job of jobs) {
      try {
        const write = job.build();
        if (write) {
          for (const row of write.rows) {
            rows.push(row);
            this.onRow(row);
          }
          Object.assign(this.floatingCache, write.cache);
          for (const key in write.cache) this.cache.set(key, write.cache[key]);
        }
        settled.push(() => job.done(!!write));
      } catch (cause) {
        settled.push(() => job.failed(cause));
      }
    }
    return rows;
  }

  private keepFloating(rows: NewRow[]): void {
    this.floating = this.floating.concat(rows);
  }

  private giveUp(cause: unknown): void {
    this.mode = 'memory';
    this.trouble = String(cause);
    if (this.db) this.db.close();
    this.db = null;
  }

  private connect(): Promise<void> {
    return new Promise((done, failed) => {
      if (!this.factory) throw new Error('no IndexedDB');
      const request = this.factory.open(this.name, 1);
      const cancel = this.later(OPEN_DEADLINE_MS, () => failed(new Error('IndexedDB does not answer')));
      request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name));
      request.onerror = () => failed(request.error);
      request.onsuccess = () => {
        cancel();
        this.db = request.result;
        this.db.onclose = () => (this.db = null); // the browser closed it (storage cleared): connect again next time
        done();
      };
    });
  }

  /** Catch up, then write the floating rows and those of `build`. Rejects when the transaction did not complete. */
  private transaction(mode: IDBTransactionMode, build: () => NewRow[]): Promise<void> {
    return new Promise((done, failed) => {
      // TypeScript's library does not know the option everywhere; browsers before 83 ignore it and always sync.
      const options = { durability: 'strict' } as IDBTransactionOptions;
      const tx = this.db!.transaction(STORES, mode, options);
      const pages = tx.objectStore('pages');
      const cache = tx.objectStore('cache');
      let rows: NewRow[] = [];
      let commit = (): void => undefined;
      let failure: unknown = null;
      /** An exception in a handler must abort the transaction, not half-write it. */
      const guarded = <T>(request: IDBRequest<T>, then: (result: T) => void): void => {
        request.onsuccess = () => {
          try {
            then(request.result);
          } catch (cause) {
            failure = cause;
            tx.abort();
          }
        };
      };
      const write = (): void => {
        if (mode === 'readonly') return;
        rows = build();
        const pending = this.floating.concat(rows);
        if (!pending.length && !Object.keys(this.floatingCache).length) return;
        const draft = this.file.append(pending);
        draft.pages.forEach((page, no) => pages.put(page, no));
        for (const key in this.floatingCache) cache.put(this.floatingCache[key], key);
        commit = () => {
          this.file.commit(draft);
          this.floating = [];
          this.floatingCache = {};
        };
        const early = tx as IDBTransaction & { commit?: () => void };
        if (early.commit) early.commit();
      };
      tx.oncomplete = () => {
        commit();
        done();
      };
      tx.onabort = () => {
        this.keepFloating(rows);
        failed(failure || tx.error || new Error('transaction aborted'));
      };
      guarded(pages.get(1), (first: Uint8Array | undefined) => {
        const stored = first ? u32(first, 24) : 0;
        if (stored === this.file.counter) write();
        else if (!stored) this.restore(pages, cache, write);
        else this.catchUp(pages, cache, guarded, write);
      });
    });
  }

  /** The database was emptied under a living page ("clear storage"): this page still has every row. Write them all. */
  private restore(pages: IDBObjectStore, cache: IDBObjectStore, then: () => void): void {
    this.file.pages.forEach((page, no) => pages.put(page, no));
    this.cache.forEach((value, key) => cache.put(value, key));
    then();
  }

  /** Read what others appended since: the pages an append may change, and those that are new. */
  private catchUp(
    pages: IDBObjectStore,
    cache: IDBObjectStore,
    guarded: <T>(request: IDBRequest<T>, then: (result: T) => void) => void,
    then: () => void,
  ): void {
    const known = this.file.lastSeq;
    const fresh = new Map<number, Uint8Array>();
    const count = this.file.count;
    for (const no of this.file.changeable()) guarded(pages.get(no), (page: Uint8Array) => fresh.set(no, page));
    const above = IDBKeyRange.lowerBound(count, true);
    guarded(pages.getAll(above), (found: Uint8Array[]) => found.forEach((page, i) => fresh.set(count + 1 + i, page)));
    let keys: IDBValidKey[] = [];
    guarded(cache.getAllKeys(), (found) => (keys = found));
    guarded(cache.getAll(), (values) => {
      keys.forEach((key, i) => this.cache.set(key as string, values[i]));
      this.file.load(fresh);
      for (const row of this.file.rows(known)) this.onRow(row as Row);
      then();
    });
  }
}
