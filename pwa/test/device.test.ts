/** The whole device against a server that loses, repeats, refuses, forges and forgets. */
import { IDBFactory, IDBKeyRange } from 'fake-indexeddb';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Device } from '../src/api';
import { hex } from '../src/core/bytes';
import { unhex } from '../src/core/bytes-more';
import { parseChange } from '../src/core/change';
import { Core, openDevice } from '../src/core/device';
import { readBundle } from '../src/core/frame';
import { merge } from '../src/core/history';
import { Value, unpack } from '../src/core/msgpack';
import { rowsOfFile } from '../src/core/wire';
import type { Ports } from '../src/core/ports';
import { Server } from './server';
import { seeded } from './support';

Object.assign(globalThis, { IDBKeyRange });
const DAY = '2026-11-22';
const REGISTER = 'c-3a/' + DAY + '/day';

/** A phone whose clock and timers the test turns by hand. */
class World {
  wall = Date.parse('2026-11-22T06:00:00Z');
  mono = 5000;
  up = true;
  looking = true;
  timers: { at: number; then: () => void }[] = [];
  random = seeded(9);

  constructor(
    readonly server: Server,
    public factory: IDBFactory | null = new IDBFactory(),
    seed = 9,
  ) {
    this.random = seeded(seed);
  }

  readonly ports: Ports = {
    wallMs: () => this.wall,
    monoMs: () => this.mono,
    random: (bytes) => this.random.bytes(bytes),
    uniform: () => 0.5,
    later: (ms, then) => {
      const timer = { at: this.mono + ms, then };
      this.timers.push(timer);
      return () => (this.timers = this.timers.filter((other) => other !== timer));
    },
    fetch: (url, init) => this.server.fetch(url, init),
    indexedDb: null,
    origin: 'http://test',
    online: () => this.up,
    visible: () => this.looking,
    modulesAtHand: () => true,
    link: () => '2g',
    exclusively: (work) => work().then(() => true),
  };

  open(): Promise<Device> {
    return openDevice({ ...this.ports, indexedDb: this.factory }, 'test-1');
  }

  /** Let time pass; timers due run in order. */
  pass(ms: number): void {
    this.mono += ms;
    this.wall += ms;
    const due = this.timers.filter((timer) => timer.at <= this.mono);
    this.timers = this.timers.filter((timer) => timer.at > this.mono);
    due.forEach(({ then }) => then());
  }
}

const coreOf = (device: Device): Core => (device as unknown as { core: Core }).core;
/** Wait until the conversation under way has ended (signatures run on other threads, so turns of the loop are counted generously). */
const settled = async (device: Device): Promise<void> => {
  await coreOf(device).store.write(() => null);
  for (let i = 0; i < 20; i++) await new Promise((done) => setImmediate(done)); // sealing comes before the attempt
  for (let i = 0; i < 100000 && device.state.syncing; i++) await new Promise((done) => setImmediate(done));
  assert.equal(device.state.syncing, false);
};
const stepOf = (device: Device): unknown => device.state.registers.get(REGISTER)?.step;
const valueOf = (device: Device, key: string): readonly string[] => device.state.registers.get(REGISTER)?.values.get(key) ?? [];

async function enrolled(server?: Server): Promise<{ world: World; server: Server; device: Device }> {
  const theServer = server ?? (await new Server().start());
  const world = new World(theServer);
  const device = await world.open();
  const identity = await device.enrol('eg-07-113', 'bcd-fghj-klm', 'هاتف سعاد');
  assert.equal(identity.userName, 'سعاد');
  await settled(device);
  return { world, server: theServer, device };
}

/** Two phones of one class at one server. */
async function twoPhones(): Promise<{ server: Server; one: { device: Device; world: World }; other: Device }> {
  const server = await new Server().start();
  const one = await enrolled(server);
  const two = new World(server, new IDBFactory(), 77);
  const other = await two.open();
  await other.enrol('eg-07-113', 'BCDFGHJKLM', 'second');
  await settled(other);
  return { server, one, other };
}

test('enrolment brings the person, the classes, the calendar, and a greeting', async () => {
  const { device, server } = await enrolled();
  const { identity, classes, closedDates, sessions, storage } = device.state;
  assert.equal(identity!.shortNumber.length, 6);
  assert.equal(identity!.device, [...server.devices.keys()][0]);
  assert.deepEqual(classes, [{ id: 'c-3a', name: 'فصل ٣/أ', grade: '3', version: 4, pupils: [['s1', 'أحمد'], ['s2', 'منى']] }]);
  assert.equal(closedDates.get('2026-10-06'), 'armed-forces-day');
  assert.deepEqual(sessions, ['day']);
  assert.equal(storage, 'durable');
  assert.equal(device.today(), DAY);
  assert.equal(device.msSinceMidnight(DAY), 8 * 3600000, 'Cairo winter time: 06:00 UTC is 08:00');
  assert.equal(device.msSinceMidnight('2026-05-01'), (device.msSinceMidnight(DAY) + (Date.parse(DAY) - Date.parse('2026-05-01')) + 3600000), 'summer time then');
});

test('a wrong code is refused with its slug and changes nothing', async () => {
  const server = await new Server().start();
  const device = await new World(server).open();
  await assert.rejects(device.enrol('eg-07-113', 'ZZZZZZZZZZ', 'x'), { slug: 'bad-code', retry: 'never' });
  assert.equal(device.state.identity, null);
});

test('taps become saved, sent, confirmed; every step is in the log', async () => {
  const { device, server, world } = await enrolled();
  await device.tap(REGISTER, [['s1', 'P28800000'], ['s2', 'A28800001']]);
  assert.equal(stepOf(device), 'saved');
  assert.equal(device.state.pending, 1);
  assert.equal(device.state.registers.get(REGISTER)!.unsealed, 2);
  await device.tap(REGISTER, [['s2', 'L28900000:5']]);
  await device.tap(REGISTER, [['s2', null]]);
  assert.deepEqual(valueOf(device, 's2'), ['A28800001'], 'undo takes back one tap');
  server.settle = false;
  await device.sync('save');
  assert.equal(stepOf(device), 'sent');
  assert.equal(device.state.pending, 0);
  assert.equal(device.state.lastCompleteSyncAtMs, server.nowMs);
  server.settle = true;
  world.pass(3000);
  await settled(device);
  assert.equal(stepOf(device), 'confirmed');
  const [change] = [...server.changes.values()].map(({ chunk }) => parseChange(chunk));
  assert.deepEqual(change.ops.map(({ key, value }) => [key, value]), [['s1', 'P28800000'], ['s2', 'A28800001']]);
  const kinds = [...rowsOfFile(await device.exportLog())].map(({ kind }) => kind);
  for (const kind of ['enrol', 'start', 'tap', 'change', 'frame', 'receipt', 'settled', 'roster', 'calendar', 'clock', 'attempt']) assert.ok(kinds.includes(kind), kind);
});

test('bad marks and registers are refused before they reach the log', async () => {
  const { device } = await enrolled();
  await assert.rejects(device.tap(REGISTER, [['s1', 'Q1']]), { slug: 'bad-mark' });
  await assert.rejects(device.tap('c-3a/2026-02-30/day', [['s1', 'P1']]), { slug: 'bad-register' });
  await assert.rejects(device.tap('c-3a/nonsense', [['s1', 'P1']]), { slug: 'bad-register' });
  assert.equal(device.state.registers.size, 0);
});

test('a lost request and a lost answer: the same bytes go again and count once', async () => {
  const { device, server } = await enrolled();
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  server.faults = ['lose-request'];
  await device.sync('save');
  assert.equal(stepOf(device), 'saved');
  assert.equal(device.state.trouble, 'no-answer');
  const before = server.frames.size;
  server.faults = ['lose-answer'];
  await device.sync('hand');
  assert.equal(stepOf(device), 'saved');
  assert.equal(server.changes.size, 1, 'it arrived, but the phone cannot know');
  await device.sync('hand');
  assert.equal(stepOf(device), 'confirmed');
  assert.equal(device.state.trouble, null);
  assert.equal(server.changes.size, 1);
  assert.equal(server.frames.size, before + 2, 'one frame with the change, one greeting under the fresh nonce');
});

test('portals, cut answers and forged answers are no answer', async () => {
  for (const fault of ['portal', 'cut', 'forged'] as const) {
    const { device, server } = await enrolled();
    await device.tap(REGISTER, [['s1', 'P28800000']]);
    server.faults = [fault];
    await device.sync('save');
    assert.equal(stepOf(device), 'saved', fault);
    assert.equal(device.state.trouble, 'no-answer', fault);
    await device.sync('hand');
    assert.equal(stepOf(device), 'confirmed', fault);
  }
});

test('Retry-After is obeyed, also against a finger; then it goes by itself', async () => {
  const { device, server, world } = await enrolled();
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  server.faults = ['busy'];
  await device.sync('save');
  assert.equal(device.state.trouble, 'busy');
  const requests = server.requests;
  await device.sync('hand');
  assert.equal(server.requests, requests);
  world.pass(120000);
  await settled(device);
  assert.equal(stepOf(device), 'confirmed');
});

test('the back-off doubles with full jitter up to its cap, and a reconnect ends it', async () => {
  const { device, server, world } = await enrolled();
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  const waits: number[] = [];
  for (let n = 0; n < 10; n++) {
    server.faults = ['portal'];
    await device.sync(n ? 'reconnect' : 'save');
    waits.push(Math.max(...world.timers.map(({ at }) => at)) - world.mono);
  }
  assert.deepEqual(waits, [2500, 5000, 10000, 20000, 40000, 80000, 160000, 320000, 450000, 450000]);
  const requests = server.requests;
  await device.sync('open');
  assert.equal(server.requests, requests, 'within the back-off nothing is sent');
  await device.sync('reconnect');
  assert.equal(stepOf(device), 'confirmed');
});

test('a request without an answer ends at its deadline', async () => {
  const { device, server, world } = await enrolled();
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  server.faults = ['timeout'];
  const attempt = device.sync('save');
  while (!server.timingOut) await new Promise((done) => setImmediate(done));
  assert.equal(device.state.syncing, true);
  world.pass(90000);
  await attempt;
  assert.equal(device.state.trouble, 'no-answer');
  assert.equal(stepOf(device), 'saved');
});

test('offline: nothing is tried, taps are kept, the next start sends them', async () => {
  const { device, world } = await enrolled();
  world.up = false;
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await device.sync('save');
  assert.equal(device.state.trouble, 'offline');
  assert.equal(device.state.pending, 1);
  world.up = true;
  const next = await world.open();
  assert.equal(next.state.pending, 1);
  assert.deepEqual(valueOf(next, 's1'), ['P28800000']);
  await next.sync('open');
  assert.equal(stepOf(next), 'confirmed');
});

test('taps left unsealed by a kill are sealed at the next start, by a new actor', async () => {
  const { device, world, server } = await enrolled();
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await device.seal();
  await device.tap(REGISTER, [['s1', 'A28800001']]);
  const next = await world.open();
  await settled(next);
  assert.equal(next.state.registers.get(REGISTER)!.unsealed, 0);
  await next.sync('open');
  const changes = [...server.changes.values()].map(({ chunk }) => parseChange(chunk));
  assert.equal(new Set(changes.map(({ actor }) => actor)).size, 2);
  assert.deepEqual(merge(changes).visible.get('s1')!.map(({ value }) => value), ['A28800001']);
  assert.deepEqual(changes.map(({ seq }) => seq), [1, 1]);
});

test('a large backlog goes in bounded requests, newest day first, also when the server asks for less', async () => {
  const { device, server } = await enrolled();
  const random = seeded(4);
  for (let day = 1; day <= 28; day++) {
    for (const group of ['a', 'b', 'c']) {
      const register = `c-${group}/2026-10-${String(day).padStart(2, '0')}/day`;
      await device.tap(register, Array.from({ length: 90 }, (_, i) => ['s' + (10000 + i), 'PALE'[random.int(4)] + (28800000 + random.int(9999999))]));
    }
  }
  await device.seal();
  server.faults = ['too-large', 'too-large'];
  await device.sync('save');
  assert.equal(device.state.trouble, null);
  assert.equal(device.state.pending, 0);
  assert.equal(server.changes.size, 84);
  const first = [...server.changes.values()][0].register;
  assert.ok(first.includes('2026-10-28'), first);
  assert.deepEqual(server.errors, []);
});

test('a frame the server cannot read is set aside and holds up no other', async () => {
  const { device, server } = await enrolled();
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  server.faults = ['lose-request'];
  await device.sync('save');
  const bad = coreOf(device).fold.ledger as unknown as { lastNumber: number };
  const number = bad.lastNumber;
  server.refuseFrame = (n) => n === number;
  await device.tap('c-3a/2026-11-23/day', [['s1', 'P28800000']]);
  await device.sync('hand');
  assert.equal(device.state.registers.get('c-3a/2026-11-23/day')!.step, 'confirmed');
  assert.equal(stepOf(device), 'saved', 'kept, and still pending');
  assert.equal(device.state.pending, 1);
  const { frames } = readBundle(await device.exportBundle());
  assert.equal(frames.length, 1, 'an export still holds it');
});

test('a held and a refused change are told apart', async () => {
  const { device, server } = await enrolled();
  server.settle = false;
  server.verdict = () => [2, 'unknown-pupil'];
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await device.sync('save');
  assert.equal(stepOf(device), 'sent');
  assert.deepEqual(device.state.registers.get(REGISTER)!.slugs, ['unknown-pupil']);
  server.verdict = () => [3, 'actor'];
  await device.tap(REGISTER, [['s2', 'P28800000']]);
  await device.sync('save');
  assert.equal(stepOf(device), 'saved', 'a refused change is on this phone only');
  assert.equal(device.state.pending, 1);
  const requests = server.requests;
  server.verdict = () => null;
  await device.sync('hand');
  assert.ok(server.requests - requests <= 2, 'and is not offered again and again');
  await device.tap(REGISTER, [['s2', 'P28800001']]);
  await device.sync('hand');
  const history = merge([...server.changes.values()].map(({ chunk }) => parseChange(chunk)));
  assert.deepEqual(history.pending, [], 'what comes after does not build on what the server does not have');
  assert.deepEqual(history.visible.get('s2')!.map(({ value }) => value), ['P28800001']);
});

test('revocation keeps everything and says so once', async () => {
  const { device, server } = await enrolled();
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  server.revoked = true;
  await device.sync('save');
  await device.sync('hand');
  assert.deepEqual(device.state.notices, ['revoked']);
  assert.equal(device.state.pending, 1);
  const rows = [...rowsOfFile(await device.exportLog())];
  assert.equal(rows.filter(({ kind, body }) => kind === 'notice' && (unpack(body) as Value[])[0] === 'revoked').length, 1);
});

test('another author’s marks arrive, disagree, and are both shown; a forged change is not taken', async () => {
  const { server, one, other } = await twoPhones();
  await one.device.tap(REGISTER, [['s1', 'P28800000']]);
  await other.tap(REGISTER, [['s1', 'A28811111']]);
  await one.device.sync('save');
  server.items = () => [['change', REGISTER, 'x', Uint8Array.of(1, 2, 3)]];
  await other.sync('save');
  server.items = () => [];
  await one.device.sync('hand');
  const values = [...valueOf(one.device, 's1')];
  assert.deepEqual([...values].sort(), ['A28811111', 'P28800000']);
  assert.deepEqual([...valueOf(other, 's1')], values, 'both phones show the same winner');
  assert.ok(other.state.notices.includes('unreadable-change'));
  await one.device.tap(REGISTER, [['s1', 'P28899999']]);
  await one.device.sync('save');
  assert.deepEqual(valueOf(one.device, 's1'), ['P28899999'], 'a new tap settles the disagreement');
});

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

test('the confirmation is owed by the state: a second round of the same attempt does not make it forgotten', async () => {
  const { device, server, world } = await enrolled();
  server.settle = false;
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await Promise.all([device.sync('save'), device.sync('hand'), device.sync('hand')]);
  assert.equal(stepOf(device), 'sent');
  server.settle = true;
  world.pass(3000);
  await settled(device);
  assert.equal(stepOf(device), 'confirmed');
});

test('a server in a crowd gives a receipt alone: the news come with the ask for the confirmation, from the same cursor', async () => {
  const { server, one, other } = await twoPhones();
  const { device, world } = one;
  await other.tap(REGISTER, [['s2', 'A28811111']]);
  await other.sync('save');
  server.sheds = true;
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  const asks = server.asks.length;
  await device.sync('save');
  assert.equal(server.asks.length, asks + 1, 'it does not ask again at once');
  assert.equal(stepOf(device), 'sent');
  assert.deepEqual(valueOf(device, 's2'), []);
  world.pass(3000);
  await settled(device);
  assert.equal(server.asks.length, asks + 2);
  assert.deepEqual(server.asks[asks + 1][1], server.asks[asks][1], 'the cursor is where it was');
  assert.equal(stepOf(device), 'confirmed');
  assert.deepEqual(valueOf(device, 's2'), ['A28811111']);
});

test('asking for a confirmation becomes rarer and ends; a new receipt begins anew; a hidden page does not ask', async () => {
  const { device, server, world } = await enrolled();
  server.settle = false;
  const asks: number[] = [];
  const watch = async (seconds: number): Promise<void> => {
    asks.length = 0;
    for (let s = 1; s <= seconds; s++) {
      const before = server.requests;
      world.pass(1000);
      await settled(device);
      if (server.requests > before) asks.push(s);
    }
  };
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await device.sync('save');
  await watch(900);
  assert.deepEqual(asks, [3, 18, 78, 378], 'after 3, 15, 60 and 300 s, then no more');
  await device.tap(REGISTER, [['s2', 'P28800000']]);
  await device.sync('save');
  world.looking = false;
  await watch(30);
  assert.deepEqual(asks, []);
  world.looking = true;
  await device.sync('return');
  server.settle = true;
  await watch(600);
  assert.deepEqual(asks, [3], 'and ends with the confirmation');
  assert.equal(stepOf(device), 'confirmed');
});

test('a sync nobody asked for leaves a register alone that is being worked at: undo still undoes', async () => {
  const { device, server, world } = await enrolled();
  for (const reason of ['open', 'return', 'reconnect', 'timer', 'background']) {
    await device.tap(REGISTER, [['~bulk', 'B28800000'], ['s1', 'P28800000']]);
    await device.sync(reason);
    assert.equal(device.state.registers.get(REGISTER)!.unsealed, 2, reason);
    assert.equal(stepOf(device), 'saved', reason);
    await device.tap(REGISTER, [['~bulk', null], ['s1', null]]);
    assert.deepEqual(valueOf(device, 's1'), [], reason);
  }
  assert.equal(server.changes.size, 0);
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await device.tap('c-3a/2026-11-23/day', [['s1', 'A28800000']]);
  world.mono += 19000;
  world.wall += 19000;
  await device.tap('c-3a/2026-11-23/day', [['s2', 'A28819000']]);
  world.mono += 1000;
  world.wall += 1000;
  await device.sync('open');
  assert.equal(stepOf(device), 'confirmed', 'the one left alone for 20 s goes');
  assert.equal(device.state.registers.get('c-3a/2026-11-23/day')!.unsealed, 2, 'the other stays');
  world.pass(19000);
  await settled(device);
  assert.equal(device.state.pending, 0, 'until its own 20 s are over');
  assert.equal(server.changes.size, 2, 'one change each');
});

test('marks tapped without sight of another’s stay a disagreement, also when the other’s come before the sealing', async () => {
  const { one, other } = await twoPhones();
  await one.device.tap(REGISTER, [['s1', 'P28800000']]);
  await one.device.sync('save');
  await other.tap(REGISTER, [['s1', 'A28811111']]);
  await other.sync('open'); // seals nothing that is being tapped, and brings the other’s change
  await other.sync('hand');
  assert.deepEqual([...valueOf(other, 's1')].sort(), ['A28811111', 'P28800000']);
});

test('a tap made while a background attempt runs can be undone; done with a finger meanwhile seals and sends it', async () => {
  const { device, server } = await enrolled();
  const attempt = device.sync('open');
  await device.tap(REGISTER, [['s1', 'A28800000']]);
  await attempt;
  assert.equal(device.state.registers.get(REGISTER)!.unsealed, 1);
  await Promise.all([device.sync('open'), device.sync('hand')]);
  assert.equal(stepOf(device), 'confirmed');
  assert.equal(server.changes.size, 1);
});

test('the version is told until the server has heard it, and again by the next app session', async () => {
  const { device, server, world } = await enrolled();
  assert.deepEqual(server.asks.map((ask) => ask[3]), [null], 'the enrolment told it');
  const next = await world.open();
  server.asks.length = 0;
  server.faults = ['lose-request'];
  await next.sync('open');
  await next.sync('hand');
  await next.sync('hand');
  assert.deepEqual(server.asks.map((ask) => ask[3]), ['test-1', null]);
  assert.equal(device.state.storage, 'durable');
});

test('where the lazy modules are not on the phone, the start does not wait for them; marks come with them', async () => {
  const { device, world } = await enrolled();
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await device.sync('save');
  const next = await openDevice({ ...world.ports, indexedDb: world.factory, modulesAtHand: () => false }, 'test-1');
  assert.equal(coreOf(next).fold.ledger, null);
  assert.equal(next.state.registers.get(REGISTER)!.partial, true);
  assert.equal(stepOf(next), 'saved', 'less than the truth, never more');
  await next.prepare();
  assert.equal(next.state.registers.get(REGISTER)!.partial, false);
  assert.equal(stepOf(next), 'confirmed');
  assert.deepEqual(valueOf(next, 's1'), ['P28800000']);
});

test('own work decides the step: what others made is never a reason to wait', async () => {
  const server = await new Server().start();
  const one = await enrolled(server);
  const two = new World(server, new IDBFactory(), 78);
  const other = await two.open();
  await other.enrol('eg-07-113', 'BCDFGHJKLM', 'second');
  await settled(other);
  server.settle = false;
  await one.device.tap(REGISTER, [['s1', 'P28800000']]);
  await one.device.sync('save');
  server.settle = true;
  await other.tap(REGISTER, [['s2', 'A28811111']]);
  await other.sync('save');
  server.settle = false;
  await one.device.sync('hand');
  assert.equal(valueOf(one.device, 's2').length, 1);
  const book = coreOf(one.device).fold.ledger!.sealed(REGISTER) as unknown as { changes: Map<string, { own: boolean; settled: number }> };
  book.changes.forEach((entry) => (entry.settled = +entry.own));
  assert.equal((book as unknown as { step: string }).step, 'confirmed', 'mine is confirmed, theirs is not settled here');
  book.changes.forEach((entry) => (entry.settled = entry.own ? 1 : 2));
  assert.equal((book as unknown as { step: string }).step, 'confirmed', 'and their review is theirs');
});

test('a body that came too slowly is halved and sent again; a single frame is never set aside for it', async () => {
  const { device, server } = await enrolled();
  const backlog = async (first: number): Promise<void> => {
    for (let day = first; day < first + 8; day++) {
      await device.tap(`c-a/2026-10-${String(day).padStart(2, '0')}/day`, Array.from({ length: 90 }, (_, i) => ['s' + (10000 + i), 'P' + (28800000 + day * 977 * i)]));
      await coreOf(device).seal();
      server.faults = ['lose-request'];
      await device.sync('hand'); // one frame each, outstanding
    }
  };
  await backlog(1);
  assert.ok(coreOf(device).fold.pending >= 8);
  server.faults = ['slow-body', 'slow-body'];
  await device.sync('hand');
  assert.equal(device.state.pending, 0, 'smaller requests went through in the same attempt');
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  server.faults = ['slow-body', 'slow-body', 'slow-body', 'slow-body', 'slow-body', 'slow-body'];
  await device.sync('hand');
  assert.equal(stepOf(device), 'saved');
  assert.equal(device.state.trouble, 'slow-body');
  server.faults = ['too-large'];
  await device.sync('hand');
  server.faults = [];
  await device.sync('hand');
  assert.equal(stepOf(device), 'confirmed', 'it was not set aside');
  const rows = [...rowsOfFile(await device.exportLog())];
  assert.ok(!rows.some(({ kind, body }) => kind === 'notice' && (unpack(body) as Value[])[0] === 'quarantine'));
});

test('the last settlement counts, whatever its revision: after a restore they begin lower, and one may come in parts', async () => {
  const { device, server } = await enrolled();
  server.revision = () => 9;
  server.settle = false;
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  await device.sync('save');
  const short = (): Value => Uint8Array.from([...server.changes.keys()][0].slice(0, 16).match(/../g)!.map((two) => parseInt(two, 16)));
  server.items = () => [['settled', REGISTER, 9, [[short(), 2, 'disputed']]]];
  await device.sync('hand');
  assert.equal(stepOf(device), 'review');
  server.items = () => [['settled', REGISTER, 0, [[short(), 2, 'register-full']]]];
  await device.sync('hand');
  assert.deepEqual(device.state.registers.get(REGISTER)!.slugs, ['register-full'], 'words without a revision of their own');
  server.items = () => [['settled', REGISTER, 3, [[short(), 1, null]]]];
  await device.sync('hand');
  assert.equal(stepOf(device), 'confirmed', 'a lower revision of a restored server');
});

test('of several directives the strongest is carried out, and none is reported done before those below it', async () => {
  for (const levels of [['rebuild', 'nudge'], ['nudge', 'repull'], ['nudge', 'rebuild', 'repull']]) {
    const { device, server } = await enrolled();
    await device.tap(REGISTER, [['s1', 'P28800000']]);
    await device.sync('save');
    let told = 0;
    server.items = () => (told++ ? [] : levels.map((level, i): Value => ['directive', 7 + i, level, 'why', server.nowMs]));
    server.asks.length = 0;
    await device.sync('hand');
    const last = 6 + levels.length;
    assert.ok(server.asks.some((ask) => ask[1] === null), levels + ': fetched from the beginning');
    assert.equal(server.asks.some((ask) => ask[2] !== null), levels.includes('rebuild'), levels + ': offered');
    assert.deepEqual([...new Set(server.asks.map((ask) => ask[5]))], [0, last], levels + ': nothing is done before all of it is');
    assert.equal(device.state.directive, null);
    assert.equal(coreOf(device).fold.waiting.size, 0);
  }
});

test('an id is reported done only when every lower one is', async () => {
  const { device } = await enrolled();
  const core = coreOf(device);
  const put = (id: number, state: string): Promise<boolean> => core.write(() => ({ rows: [core.row('directive', null, [id, 'nudge', 'why', state])] }));
  const ledger = await core.complete();
  await put(7, 'delivered');
  await put(8, 'delivered');
  await put(8, 'done');
  assert.equal(ledger.done, 0);
  await put(7, 'done');
  assert.equal(ledger.done, 8);
  await put(9, 'delivered');
  assert.equal(ledger.done, 8);
});

test('where the lazy half cannot be had, one timer tries again, however often somebody asked', async () => {
  const { device, world } = await enrolled();
  const phone = device as unknown as { wire: () => Promise<never> };
  const load = phone.wire;
  phone.wire = () => Promise.reject(Object.assign(new Error('m/wire.js'), { slug: 'offline' }));
  await device.tap(REGISTER, [['s1', 'P28800000']]);
  for (let i = 0; i < 5; i++) await device.sync('hand');
  assert.equal(device.state.trouble, 'offline');
  assert.equal(stepOf(device), 'saved');
  assert.equal(world.timers.filter(({ at }) => at - world.mono > 50000).length, 1);
  phone.wire = load;
  world.pass(120000);
  await settled(device);
  assert.equal(stepOf(device), 'confirmed');
});
