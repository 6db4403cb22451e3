/** The whole device: enrolment, taps, and a server that loses, cuts, refuses, forges and is late. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseChange } from '../src/core/change';
import { readBundle } from '../src/core/frame';
import { merge } from '../src/core/history';
import { Value, unpack } from '../src/core/msgpack';
import { rowsOfFile } from '../src/core/wire';
import { DAY, REGISTER, World, coreOf, enrolled, settled, stepOf, twoPhones, valueOf } from './phone';
import { Server } from './server';
import { seeded } from './support';

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
