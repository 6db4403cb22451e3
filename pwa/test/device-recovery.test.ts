/** The whole device after something was lost or restored: copies, keys, servers, killed starts; and the work of other phones. */
import { IDBFactory } from 'fake-indexeddb';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hex } from '../src/core/bytes';
import { unhex } from '../src/core/bytes-more';
import { parseChange } from '../src/core/change';
import { openDevice } from '../src/core/device';
import { readBundle } from '../src/core/frame';
import { merge } from '../src/core/history';
import { Value, unpack } from '../src/core/msgpack';
import { rowsOfFile } from '../src/core/wire';
import { REGISTER, World, coreOf, enrolled, settled, stepOf, valueOf } from './phone';
import { Server } from './server';
import { seeded } from './support';

test('a restored copy of the phone: new numbers, a new actor, a notice, and nothing is lost', async () => {
  const { device, server } = await enrolled();
  // The copy: the same database as it was before, as a backup of the phone would bring it back.
  const source = coreOf(device).store;
  const copy = new World(server, new IDBFactory(), 123);
  const restored = await copy.open();
  const pages = new Map(Array.from(source.file.pages, ([no, page]) => [no, page.slice()]));
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await device.sync('save');
  await device.tap(REGISTER, [['s1', 'L28900000:3']]);
  await device.sync('save');
  const target = coreOf(restored).store;
  target.file.load(pages);
  for (const row of target.file.rows()) coreOf(restored).fold.apply(row);
  source.cache.forEach((value, key) => target.cache.set(key, value));
  const actor = hex(coreOf(restored).session);
  await restored.tap(REGISTER, [['s2', 'A28800000']]);
  await restored.sync('hand');
  assert.ok(restored.state.notices.includes('restored-copy'));
  assert.notEqual(hex(coreOf(restored).session), actor);
  await restored.sync('hand');
  assert.equal(restored.state.pending, 0);
  const changes = [...server.changes.values()].map(({ chunk }) => parseChange(chunk));
  assert.deepEqual([...merge(changes).visible.keys()].sort(), ['s1', 's2']);
  const rows = [...rowsOfFile(await restored.exportLog())].map(({ kind, body }) => ({ kind, body: unpack(body) as Value[] }));
  const noticed = rows.findIndex(({ kind, body }) => kind === 'notice' && body[0] === 'restored-copy');
  const later = rows.slice(noticed).filter(({ kind }) => kind === 'frame');
  assert.ok(later.length > 0);
  for (const { body } of later) assert.ok((body[0] as number) > Number(rows[noticed].body[1]), 'numbers go on behind those the server knows');
});

test('a server restored from an older backup gets again what it lost', async () => {
  const { device, server } = await enrolled();
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await device.sync('save');
  await device.tap(REGISTER, [['s2', 'A28800000']]);
  await device.sync('save');
  assert.equal(server.changes.size, 2);
  const [kept] = [...server.changes];
  server.changes = new Map([kept]);
  server.epoch = 2;
  await device.sync('hand');
  assert.equal(server.changes.size, 2);
  assert.equal(device.state.pending, 0);
  assert.equal(stepOf(device), 'confirmed');
});

test('a restored server: an epoch of seconds, older frame numbers, an unknown nonce, a word of archived changes, an order with a great id', async () => {
  const { device, server } = await enrolled();
  const before = { changes: new Map(server.changes), frames: new Set(server.frames), known: new Map([...server.devices].map(([id, known]) => [id, { ...known }])) };
  for (const pupil of ['s1', 's2', 's3']) {
    await device.tap(REGISTER, [[pupil, 'P28800000']]);
    await device.sync('save');
  }
  const wanted = [...server.changes.keys()].sort();
  assert.equal(wanted.length, 3);
  const numberOf = (): number => [...server.devices.values()][0].lastNumber;
  const reached = numberOf();
  const RESTORE = 1887436800000001; // directive ids go on above epoch * 2^20
  for (const epoch of [1800000000, 1800000001]) {
    server.changes = new Map(before.changes);
    server.frames.clear();
    before.frames.forEach((frame) => server.frames.add(frame));
    before.known.forEach((known, id) => server.devices.set(id, { ...known }));
    server.epoch = epoch;
    const order = RESTORE + (epoch % 2);
    server.items = () => [
      ['directive', order, 'rebuild', 'the server was restored from a backup', server.nowMs],
      ['archived', unhex(wanted.map((hash) => hash.slice(0, 16)).join(''))],
    ];
    server.asks.length = 0;
    await device.sync('hand');
    server.items = () => [];
    assert.deepEqual([...server.changes.keys()].sort(), wanted, 'everything is there again, archived or not');
    assert.equal(device.state.pending, 0);
    assert.equal(stepOf(device), 'confirmed');
    assert.ok(numberOf() > reached, 'frame numbers go on from the phone’s own');
    assert.ok(!device.state.notices.includes('restored-copy'), 'the phone does not take the server’s loss for its own');
    assert.equal(device.state.directive, null);
    assert.equal(server.asks[server.asks.length - 1][5], order, 'the order is reported done');
  }
  const requests = server.requests;
  await device.sync('hand');
  assert.equal(server.requests, requests + 1, 'and then there is peace');
});

test('directives: nudge, repull and rebuild are carried out and reported', async () => {
  for (const level of ['nudge', 'repull', 'rebuild']) {
    const { device, server } = await enrolled();
    await device.tap(REGISTER, [['s1', 'P28800000']]);
    await device.sync('save');
    let told = 0;
    server.items = () => (told++ ? [] : [['directive', 7, level, 'lost message', server.nowMs]]);
    if (level === 'rebuild') server.changes.clear();
    server.asks.length = 0;
    await device.sync('hand');
    server.items = () => [];
    assert.equal(device.state.directive, null, level);
    assert.equal(server.asks[server.asks.length - 1][5], 7, level + ' is reported done');
    if (level !== 'nudge') assert.ok(server.asks.some((ask) => ask[1] === null), level + ' drops the cursor');
    if (level === 'rebuild') {
      assert.ok(server.asks.some((ask) => ask[2] !== null));
      assert.equal(server.changes.size, 1, 'what the server lacked came again');
    }
    const requests = server.requests;
    await device.sync('hand');
    assert.equal(server.requests, requests + 1, 'and then there is peace');
  }
});

test('a call is signed again after a stale nonce; its result is unpacked', async () => {
  const { device, server } = await enrolled();
  assert.deepEqual(await device.call('users', []), ['users']);
  [...server.devices.values()][0].nonce = 'ffffffffffffffff';
  assert.deepEqual(await device.call('code', ['t-9']), ['code']);
  assert.deepEqual(server.calls.map(([command]) => command), ['users', 'code']);
  server.faults = ['portal'];
  await assert.rejects(device.call('users', []), { slug: 'no-answer', safe: true });
});

test('another phone’s work comes in as a bundle and as its log file', async () => {
  for (const form of ['exportBundle', 'exportLog'] as const) {
    const server = await new Server().start();
    const { device, world } = await enrolled(server);
    world.up = false;
    await device.tap(REGISTER, [['s1', 'P28800000']]);
    await device.tap('c-3a/2026-11-23/day', [['s1', 'P28800000']]);
    const file = await device[form]();
    const champion = await new World(server, new IDBFactory(), 55).open();
    await champion.enrol('eg-07-113', 'BCDFGHJKLM', 'champion');
    const result = (await champion.importFile(file)) as Value[];
    assert.equal(result[1], 2, form);
    assert.equal(server.changes.size, 2, form);
    await assert.rejects(champion.importFile(Uint8Array.from([1, 2, 3])), { slug: 'not-an-export' });
    // The phone itself comes back later: duplicates, and all is well.
    world.up = true;
    await device.sync('reconnect');
    assert.equal(device.state.pending, 0, form);
  }
});

test('a phone that has lost its key still hands out its log, and keeps capturing', async () => {
  const { device } = await enrolled();
  coreOf(device).store.cache.delete('key');
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await device.sync('save');
  assert.equal(device.state.trouble, 'unknown-device');
  assert.equal(stepOf(device), 'saved');
  const rows = [...rowsOfFile(await device.exportLog())];
  assert.ok(rows.some(({ kind }) => kind === 'change'));
  assert.ok(rows.some(({ kind, body }) => kind === 'notice' && (unpack(body) as Value[])[0] === 'unsigned-export'));
});

test('a server that has forgotten the phone: with a new code it is the same device again and offers all it has', async () => {
  const { device, server } = await enrolled();
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await device.sync('save');
  const before = device.state.identity!.device;
  server.devices.clear();
  server.changes.clear(); // a backup older than the enrolment
  await device.tap(REGISTER, [['s2', 'A28800000']]);
  await device.sync('hand');
  assert.equal(device.state.trouble, 'unknown-device');
  await device.enrol('eg-07-113', 'BCDFGHJKLM', 'again');
  await settled(device);
  await device.sync('hand');
  assert.equal(device.state.identity!.device, before, 'the same key, so the same device');
  assert.equal(server.changes.size, 2, 'what the server had lost came again');
  assert.equal(stepOf(device), 'confirmed');
  const changes = [...server.changes.values()].map(({ chunk }) => parseChange(chunk));
  assert.deepEqual([...merge(changes).visible.keys()].sort(), ['s1', 's2']);
});

test('a stopped phone and a key of somebody else get a new key; the earlier one’s work stays in every export', async () => {
  for (const why of ['revoked', 'foreignKey'] as const) {
    const { device, server } = await enrolled();
    await device.tap(REGISTER, [['s1', 'P28800000']]);
    const before = device.state.identity!.device;
    server.revoked = why === 'revoked';
    if (server.revoked) await device.sync('save');
    server.revoked = false;
    server.foreignKey = why === 'foreignKey';
    await device.enrol('eg-07-113', 'BCDFGHJKLM', 'again');
    await settled(device);
    assert.notEqual(device.state.identity!.device, before, why);
    const { frames } = readBundle(await device.exportBundle());
    assert.ok(frames.length > 0);
    assert.equal(hex((unpack(frames[0].subarray(0, -64)) as Value[])[3] as Uint8Array), before);
    assert.equal(device.state.pending, 1);
    assert.deepEqual(device.state.notices, []);
  }
});

test('a rebuild offers all own work, in as many parts as it takes', async () => {
  const { device, server } = await enrolled();
  const count = 2100;
  for (let at = 0; at < count; at += 300)
    await Promise.all(Array.from({ length: 300 }, (_, i) => device.tap(`c-${at + i}/2026-10-01/day`, [['s1', 'P' + (28800000 + at + i)]])));
  await device.sync('save');
  assert.equal(server.changes.size, count);
  server.changes.clear();
  server.epoch = 2;
  server.asks.length = 0;
  await device.sync('hand');
  assert.equal(server.changes.size, count, 'all of it, not the newest 2,000');
  assert.equal(device.state.pending, 0);
  const offers = server.asks.filter((ask) => ask[2]).map((ask) => [(ask[2] as Uint8Array).length / 8, ask[1] === null]);
  assert.deepEqual(offers, [[2000, true], [100, false]], 'only the first part fetches from the beginning');
});

test('two tabs: each sees the other’s rows, frames keep one numbering', async () => {
  const { device, world, server } = await enrolled();
  const second = await openDevice({ ...world.ports, indexedDb: world.factory, random: seeded(500).bytes }, 'test-1');
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await second.tap('c-3a/2026-11-23/day', [['s1', 'A28800000']]);
  await Promise.all([device.sync('save'), second.sync('save')]);
  await device.sync('hand');
  await second.sync('hand');
  assert.equal(device.state.pending, 0);
  assert.equal(second.state.pending, 0);
  assert.equal(server.changes.size, 2);
  const numbers = [...rowsOfFile(await second.exportLog())].filter(({ kind }) => kind === 'frame').map(({ body }) => (unpack(body) as Value[])[0]);
  assert.equal(new Set(numbers).size, numbers.length);
  assert.ok(!device.state.notices.includes('restored-copy'));
});

test('without durable storage everything still works, and the state says memory', async () => {
  const server = await new Server().start();
  const device = await new World(server, null).open();
  await device.enrol('eg-07-113', 'BCDFGHJKLM', 'x');
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await device.sync('save');
  assert.equal(device.state.storage, 'memory');
  assert.equal(stepOf(device), 'confirmed');
  assert.ok([...rowsOfFile(await device.exportLog())].length > 5);
});

test('killed between any two transactions, the next start ends with everything sent once', async () => {
  const marks = (server: Server): string => JSON.stringify([...merge([...server.changes.values()].map(({ chunk }) => parseChange(chunk))).visible].map(([key, puts]) => [key, puts.map(({ value }) => value)]).sort());
  let expected = '';
  for (let at = 0; at < 14; at++) {
    const { device, world, server } = await enrolled();
    const store = coreOf(device).store;
    const write = store.write.bind(store);
    let left = at || Infinity;
    store.write = (build) => (left-- > 0 ? write(build) : new Promise(() => undefined)); // dead: nothing more happens
    const race = <T>(work: Promise<T>): Promise<unknown> => Promise.race([work, new Promise((done) => setTimeout(done, 30))]);
    await race(device.tap(REGISTER, [['s1', 'P28800000']]));
    const first = left < 0 ? 0 : 1;
    await race(device.seal());
    await race(device.tap(REGISTER, [['s2', 'A28800001']]));
    await race(device.sync('save'));
    const next = await world.open();
    await settled(next);
    if (first) assert.deepEqual(valueOf(next, 's1'), ['P28800000']);
    if (!valueOf(next, 's1').length) await next.tap(REGISTER, [['s1', 'P28800000']]);
    if (!valueOf(next, 's2').length) await next.tap(REGISTER, [['s2', 'A28800001']]);
    await next.sync('hand');
    assert.equal(next.state.pending, 0, `killed at write ${at}`);
    expected = expected || marks(server);
    assert.equal(marks(server), expected, `killed at write ${at}`);
  }
});
