/** The grammar, civil days over the table of offsets, and the two halves of the fold. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unhex } from '../src/core/bytes-more';
import { encodeChange } from '../src/core/change';
import { Fold, row } from '../src/core/fold';
import { Ledger } from '../src/core/ledger';
import { isKey, isMark, isRegister, isoDate, midnight, offsetAt } from '../src/core/register';

const utc = (iso: string): number => Date.parse(iso + 'Z');
// Cairo 2026: winter +2, summer +3 from 24 April 00:00 (skipped to 01:00) to 29 October 24:00 (back to 23:00).
const CAIRO = [[0, 7200], [utc('2026-04-23T22:00:00'), 10800], [utc('2026-10-29T21:00:00'), 7200]] as const;

test('a civil day begins where its local midnight is, in winter, in summer and on both days of the switch', () => {
  assert.equal(midnight(CAIRO, '2026-01-15'), utc('2026-01-14T22:00:00'));
  assert.equal(midnight(CAIRO, '2026-07-15'), utc('2026-07-14T21:00:00'));
  assert.equal(midnight(CAIRO, '2026-04-24'), utc('2026-04-23T22:00:00'), 'midnight is skipped: the day begins at the switch');
  assert.equal(midnight(CAIRO, '2026-10-29'), utc('2026-10-28T21:00:00'));
  assert.equal(midnight(CAIRO, '2026-10-30'), utc('2026-10-29T22:00:00'), 'the hour before midnight came twice');
  for (let ms = utc('2026-01-01T00:00:00'); ms < utc('2027-01-01T00:00:00'); ms += 1234567) {
    const date = isoDate(ms + offsetAt(CAIRO, ms));
    const since = ms - midnight(CAIRO, date);
    assert.ok(since >= 0 && since < 25 * 3600000, new Date(ms).toISOString());
  }
});

test('keys, marks and registers obey the grammar and nothing else does', () => {
  const good: [string, string][] = [['s1', 'P0'], ['A.b_c-9', 'L-5:12'], ['s1', 'E28815000:sick'], ['~bulk', 'B1'], ['~session', 'H1'], ['~session', 'N1:strike'], ['s1', 'U9999999999999']];
  const bad: [string, string][] = [
    ['s1', 'P-0'], ['s1', 'P01'], ['s1', 'P'], ['s1', 'Q1'], ['s1', 'P1:'], ['s1', 'P1:Sick'], ['s1', 'P1 '], ['s1', 'P1\n'], ['s1', 'B1'], ['~bulk', 'P1'],
    ['~bulk', 'B1:x'], ['~session', 'N1'], ['~session', 'H1:x'], ['~other', 'P1'], ['', 'P1'], ['.a', 'P1'], ['s'.repeat(37), 'P1'], ['س', 'P1'],
    ['s1', 'P10000000000000'], ['s1', 'P1:' + 'x'.repeat(25)], ['s1', 'P٣'],
  ];
  for (const [key, value] of good) assert.ok(isMark(key, value), key + ' ' + value);
  for (const [key, value] of bad) assert.ok(!isMark(key, value), key + ' ' + value);
  assert.ok(isKey('s'.repeat(36)) && !isKey('s1\n'));
  for (const one of ['c/2026-11-22/day', 'c/2024-02-29/am1', 'c/2026-11-22/pm8']) assert.ok(isRegister(one), one);
  for (const one of ['c/2026-02-29/day', 'c/2026-11-22/am9', 'c/2026-11-22', 'c/2026-11-22/day/x', 'c/26-11-22/day', '/2026-11-22/day', '']) assert.ok(!isRegister(one), one);
});

const REGISTER = 'c/2026-11-22/day';
const change = encodeChange({ actor: '07'.repeat(16), seq: 1, startOp: 1, timeS: 0, deps: [], ops: [{ key: 's1', value: 'P1', preds: [] }] });
const short = unhex(change.hash.slice(0, 16));

test('before the lazy half is there a register is shown as saved, never as more; then as what it is', () => {
  const fold = new Fold();
  fold.apply(row('tap', REGISTER, 0, ['s1', 'P1', 0]));
  fold.apply(row('change', REGISTER, 0, [change.chunk]));
  fold.apply(row('frame', null, 0, [1, [short], new Uint8Array(80)]));
  assert.equal(fold.registers.get(REGISTER)!.step, 'saved');
  assert.equal(fold.pending, 1);
  fold.apply(row('tap', REGISTER, 0, ['s2', 'A1', 0]));
  assert.deepEqual([...fold.registers.get(REGISTER)!.values], [['s2', ['A1']]]);
  fold.complete(new Ledger(fold));
  assert.deepEqual([...fold.registers.get(REGISTER)!.values], [['s1', ['P1']], ['s2', ['A1']]]);
  assert.equal(fold.registers.get(REGISTER)!.step, 'saved');
});

test('both halves from the start, or the lazy one late: the same state', () => {
  const rows = [row('tap', REGISTER, 0, ['s1', 'P1', 0]), row('change', REGISTER, 0, [change.chunk]), row('settled', REGISTER, 0, [3, [[short, 1, null]]])];
  const early = new Fold();
  early.complete(new Ledger(early));
  const late = new Fold();
  for (const one of rows) {
    early.apply(one);
    late.apply(one);
  }
  late.complete(new Ledger(late));
  for (const fold of [early, late]) {
    assert.equal(fold.registers.get(REGISTER)!.step, 'saved', 'settled without a receipt is not sent');
    assert.equal(fold.pending, 1);
  }
});

test('a settlement that comes before its change counts once the change is there', () => {
  const fold = new Fold();
  fold.complete(new Ledger(fold));
  fold.apply(row('settled', REGISTER, 0, [3, [[short, 1, null]]]));
  fold.apply(row('pulled', REGISTER, 0, ['t-2', change.chunk]));
  assert.equal(fold.registers.get(REGISTER)!.step, 'confirmed');
  assert.equal(fold.pending, 0);
});

test('rows that cannot be read are counted, and their register stays pending', () => {
  const fold = new Fold();
  fold.apply({ kind: 'tap', register: REGISTER, atMs: 0, body: Uint8Array.of(0xc1) });
  fold.apply({ kind: 'receipt', register: null, atMs: 0, body: Uint8Array.of(0x80) });
  fold.apply(row('of tomorrow', null, 0, [1]));
  assert.equal(fold.strange, 2);
  assert.equal(fold.registers.get(REGISTER)!.step, 'saved');
  assert.equal(fold.pending, 1);
});
