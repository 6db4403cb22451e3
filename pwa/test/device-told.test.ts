/** What the whole device asks for and is told: confirmations, others' marks, settlements, directives; and what it leaves alone meanwhile. */
import { IDBFactory } from 'fake-indexeddb';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openDevice } from '../src/core/device';
import { Value, unpack } from '../src/core/msgpack';
import { rowsOfFile } from '../src/core/wire';
import { REGISTER, World, coreOf, enrolled, settled, stepOf, twoPhones, valueOf } from './phone';
import { Server } from './server';

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
