/** The store over IndexedDB: nothing reported as durable is ever lost, whatever dies or fails, with several tabs. */
import { IDBFactory, IDBKeyRange, IDBObjectStore } from 'fake-indexeddb';
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { NewRow } from '../src/core/pages';
import { Store } from '../src/core/store';
import { rowsOfFile } from '../src/core/wire';
import { seeded } from './support';

Object.assign(globalThis, { IDBKeyRange });
const realPut = IDBObjectStore.prototype.put;
afterEach(() => {
  IDBObjectStore.prototype.put = realPut;
});

const tap = (n: number, size = 30): NewRow => ({ kind: 'tap', register: 'c/2026-11-22/day', atMs: n, body: new Uint8Array(size).fill(n) });

class Tab {
  readonly rows: NewRow[] = [];
  readonly store: Store;

  constructor(factory: IDBFactory | null) {
    this.store = new Store(factory, (row) => this.rows.push(row), 'hudur', () => () => undefined);
  }

  async open(): Promise<this> {
    await this.store.open();
    return this;
  }

  write(...rows: NewRow[]): Promise<boolean> {
    return this.store.write(() => ({ rows }));
  }
}

const openTab = (factory: IDBFactory | null): Promise<Tab> => new Tab(factory).open();
const marks = (rows: Iterable<NewRow>): number[] => [...rows].map(({ atMs }) => atMs);

test('what was written is there for the next start, rows and cache', async () => {
  const factory = new IDBFactory();
  const tab = await openTab(factory);
  for (let n = 1; n <= 90; n++) await tab.store.write(() => ({ rows: [tap(n, n % 9 ? 40 : 6000)], cache: { cursor: n } }));
  assert.equal(tab.store.mode, 'durable');
  const next = await openTab(factory);
  assert.deepEqual(marks(next.rows), Array.from({ length: 90 }, (_, i) => i + 1));
  assert.equal(next.store.cache.get('cursor'), 90);
  await next.write(tap(91));
  assert.deepEqual(next.rows.length, 91);
  assert.deepEqual(marks(rowsOfFile(next.store.bytes())), marks(next.rows));
});

test('writes that wait together share a transaction, and a builder sees the rows before its own', async () => {
  const factory = new IDBFactory();
  const tab = await openTab(factory);
  let seen = -1;
  const counter = (): number => tab.store.file.counter;
  const before = counter();
  await Promise.all([
    tab.write(tap(1), tap(2)),
    tab.store.write(() => {
      seen = tab.rows.length;
      return { rows: [tap(3)] };
    }),
  ]);
  assert.equal(seen, 2);
  assert.equal(counter(), before + 1);
});

test('a builder that throws rejects its own promise and no other', async () => {
  const tab = await openTab(new IDBFactory());
  const bad = tab.store.write(() => {
    throw new Error('mine');
  });
  const good = tab.write(tap(1));
  await assert.rejects(bad, /mine/);
  assert.equal(await good, true);
  assert.equal(await tab.store.write(() => null), false);
});

test('three tabs writing at once lose nothing, repeat nothing, and keep one order', async () => {
  const factory = new IDBFactory();
  const tabs = await Promise.all([1, 2, 3].map(() => openTab(factory)));
  const random = seeded(3);
  await Promise.all(
    tabs.map(async (tab, t) => {
      for (let n = 0; n < 50; n++) await tab.write(tap(t * 1000 + n, random.int(8) ? 40 : 5000));
    }),
  );
  for (const tab of tabs) await tab.store.write(() => null); // catch up
  const file = [...rowsOfFile(tabs[0].store.bytes())];
  assert.deepEqual(file.map(({ seq }) => seq), Array.from({ length: 150 }, (_, i) => i + 1));
  for (const tab of tabs) {
    assert.deepEqual(marks(tab.rows), marks(file), 'each tab learnt of every row once, in the order of the file');
    assert.deepEqual(tab.store.bytes(), tabs[0].store.bytes());
  }
  assert.equal(new Set(marks(file)).size, 150);
});

test('killed at any write to the database, every row reported as durable is there and the file is whole', async () => {
  let kills = 0;
  for (let at = 1; at < 120; at += 1) {
    const factory = new IDBFactory();
    const tab = await openTab(factory);
    let puts = 0;
    let dead = false;
    const open = factory.open.bind(factory);
    factory.open = (...args: Parameters<IDBFactory['open']>) => {
      if (dead) throw new Error('killed');
      return open(...args);
    };
    IDBObjectStore.prototype.put = function (this: IDBObjectStore, ...args: Parameters<typeof realPut>) {
      if (++puts === at) {
        dead = true;
        (this as unknown as { transaction: { abort(): void } }).transaction.abort(); // the process dies: the transaction never completes
        throw new Error('killed');
      }
      return realPut.apply(this, args);
    };
    const durable: number[] = [];
    for (let n = 1; n <= 30 && !dead; n++) {
      await tab.write(tap(n, n % 10 ? 60 : 9000), tap(n + 1000));
      if (tab.store.mode === 'durable') durable.push(n, n + 1000);
    }
    IDBObjectStore.prototype.put = realPut;
    factory.open = open;
    if (!dead) continue;
    kills++;
    const next = await openTab(factory);
    assert.deepEqual(marks(next.rows), durable, `killed at write ${at}`);
    await next.write(tap(5000));
    assert.deepEqual(marks(rowsOfFile(next.store.bytes())), [...durable, 5000]);
  }
  assert.ok(kills > 60, `${kills} kills`);
});

test('when storage fails the rows stay in memory, the mode says so, and they are written as soon as it works', async () => {
  const factory = new IDBFactory();
  const tab = await openTab(factory);
  await tab.write(tap(1));
  IDBObjectStore.prototype.put = () => {
    throw new DOMException('quota', 'QuotaExceededError');
  };
  await tab.store.write(() => ({ rows: [tap(2)], cache: { cursor: 'x' } }));
  assert.equal(tab.store.mode, 'memory');
  assert.match(tab.store.trouble!, /quota/);
  await tab.write(tap(3));
  assert.deepEqual(marks(tab.rows), [1, 2, 3]);
  assert.deepEqual(marks(rowsOfFile(tab.store.bytes())), [1, 2, 3], 'an export holds them');
  assert.deepEqual(marks((await openTab(factory)).rows), [1]);
  IDBObjectStore.prototype.put = realPut;
  await tab.write(tap(4));
  assert.equal(tab.store.mode, 'durable');
  await tab.write(tap(5));
  const next = await openTab(factory);
  assert.deepEqual(marks(next.rows), [1, 2, 3, 4, 5], 'each once');
  assert.equal(next.store.cache.get('cursor'), 'x');
});

test('floating rows go behind what another tab wrote meanwhile', async () => {
  const factory = new IDBFactory();
  const [a, b] = [await openTab(factory), await openTab(factory)];
  await a.write(tap(1));
  IDBObjectStore.prototype.put = () => {
    throw new DOMException('quota', 'QuotaExceededError');
  };
  await a.write(tap(2));
  IDBObjectStore.prototype.put = realPut;
  await b.write(tap(10));
  await a.write(tap(3));
  const next = await openTab(factory);
  assert.deepEqual(marks(next.rows), [1, 10, 2, 3]);
  assert.deepEqual(marks(a.rows).sort(), [1, 10, 2, 3].sort());
});

test('without IndexedDB the log lives in memory and can still be exported', async () => {
  const tab = await openTab(null);
  assert.equal(tab.store.mode, 'memory');
  await tab.write(tap(1));
  await tab.write(tap(2));
  assert.deepEqual(marks(rowsOfFile(tab.store.bytes())), [1, 2]);
});

test('a database emptied under a living page is written anew from it', async () => {
  const factory = new IDBFactory();
  const tab = await openTab(factory);
  for (let n = 1; n <= 40; n++) await tab.store.write(() => ({ rows: [tap(n, 300)], cache: { key: 'k' } }));
  const db = await new Promise<IDBDatabase>((done, failed) => {
    const request = factory.open('hudur', 1);
    request.onsuccess = () => done(request.result as unknown as IDBDatabase);
    request.onerror = () => failed(request.error);
  });
  await new Promise<void>((done) => {
    const tx = db.transaction(['pages', 'cache'], 'readwrite');
    tx.objectStore('pages').clear();
    tx.objectStore('cache').clear();
    tx.oncomplete = () => done();
  });
  await tab.write(tap(41));
  const next = await openTab(factory);
  assert.deepEqual(marks(next.rows), Array.from({ length: 41 }, (_, i) => i + 1));
  assert.equal(next.store.cache.get('key'), 'k');
});

test('pages that are no log are left alone: the phone works in memory and says so', async () => {
  const factory = new IDBFactory();
  const tab = await openTab(factory);
  await tab.write(tap(1));
  const db = (tab.store as unknown as { db: IDBDatabase }).db;
  await new Promise<void>((done) => {
    const tx = db.transaction(['pages'], 'readwrite');
    tx.objectStore('pages').put(new Uint8Array(4096).fill(9), 2);
    tx.oncomplete = () => done();
  });
  const next = await openTab(factory);
  assert.equal(next.store.mode, 'memory');
  await next.write(tap(2));
  assert.deepEqual(marks(next.rows), [2]);
  assert.equal(next.store.mode, 'memory');
  assert.deepEqual(marks(rowsOfFile(next.store.bytes())), [2], 'what is captured now can still be exported');
});
