/** The pure parts of the page of decisions: lists of the server, words for all it can say, refusals carried whole. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { ar } from '../src/i18n/ar';
import { plural } from '../src/i18n';
import { arDecide } from '../src/i18n/ar-decide';
import { enDecide } from '../src/i18n/en-decide';
import { browserPorts } from '../src/core/ports';
import { post } from '../src/core/uploader';
import { Cell, Request, cellsOf, civil, dateAt, grouped, inOrder, letterOf, named, ruleOf, slugOf, takenAt } from '../src/screen/deciding';

const text = (...path: string[]): string => readFileSync(join(process.env.PWA!, '..', ...path), 'utf8');
const orders = (...names: string[]): string => names.map((name) => text('syncserver', 'orders', name + '.py')).join('\n');
const all = (source: string, pattern: RegExp): string[] => Array.from(source.matchAll(pattern), (found) => found[1]);

const texts = (words: object, path = ''): [string, string][] =>
  Object.entries(words).flatMap(([key, value]): [string, string][] => (typeof value === 'string' ? [[path + key, value]] : texts(value, `${path}${key}.`)));
const holes = (value: string): string => (value.match(/\{\d\}/g) || []).sort().join();

test('English says everything Arabic says; Arabic has no Latin word; all counts have six forms', () => {
  const translated = new Map(texts(enDecide));
  for (const [path, value] of texts(arDecide)) {
    assert.ok(translated.has(path), path);
    assert.doesNotMatch(value.replace(/\{\d\}/g, ''), /[A-Za-z]/, path);
    if (!/\.\d$/.test(path)) assert.equal(holes(translated.get(path)!), holes(value), path);
  }
  assert.equal(translated.size, texts(arDecide).length);
  for (const forms of [arDecide.requests, arDecide.daysLeft, arDecide.names, arDecide.disputed, arDecide.heldCount]) assert.equal(forms.length, 6);
});

test('working days left take the form that Arabic has for the number, and today is the last one', () => {
  const shown = [0, 1, 2, 3].map((days) => plural(arDecide.daysLeft, days).replace('{0}', String(days)));
  assert.deepEqual(shown, ['اليوم آخر يوم للقرار', 'باقٍ بعد اليوم يوم عمل واحد', 'باقٍ بعد اليوم يوما عمل', 'باقٍ بعد اليوم 3 أيام عمل']);
});

test('the list of reasons is the closed one of the rules, no more and no less', () => {
  const reasons = all(text('reconciliation', 'decisions.py').split('class Reason')[1].split('@dataclass')[0], /= "([a-z_]+)"/g);
  assert.equal(reasons.length, 9);
  assert.deepEqual(Object.keys(arDecide.reasons), reasons);
});

test('whoever can open what a rule closes has words; every cause of held marks has words', () => {
  const rules = all(orders('adjustments', 'disputes', 'deciding'), /refusal\(\s*"([a-z-]+)"/g)
    .concat(all(text('syncserver', 'orders', 'releases.py').split('def _check_release')[1].split('async def _released_by')[0], /refusal\(\s*"([a-z-]+)"/g), ['role', 'other-school']);
  assert.ok(rules.length >= 11, String(rules));
  for (const rule of rules) assert.ok(rule in arDecide.whoBy, rule);
  const opens = text('syncserver', 'orders', 'releases.py').split('_WHO_OPENS = {')[1].split('\n}')[0];
  const causes = all(opens, /^ {4}"([a-z-]+)"/gm).concat('out-of-scope', 'revoked');
  assert.deepEqual(Object.keys(arDecide.causes).sort(), causes.sort());
});

test('every code of the protocol has its letter, and only "not taken" has none', () => {
  const codes = all(text('clientcore', 'register.py').split('class Code')[1].split('@property')[0], /^ {4}([A-Z_]+) = "[A-Z]"/gm).map((name) => name.toLowerCase());
  assert.equal(codes.length, 8);
  for (const code of codes) assert.ok(ar[letterOf(code) as 'P'], code);
  assert.equal(letterOf('not_taken'), 'none');
  assert.equal(letterOf('B'), 'B', 'keys about the register come as their letter');
});

const cell = (key: string, now: string | null, asked: string, reason: string | null = null): Cell => ({ key, now: now === null ? null : { code: now, reason: null }, asked: { code: asked, reason } });

test('names that ask for the same stand together, in the order they came; the register itself stands alone', () => {
  const found = grouped([cell('s1', 'absent', 'present'), cell('~bulk', null, 'B'), cell('s2', 'absent', 'late', '5'), cell('s3', 'absent', 'present'), cell('s4', 'not_taken', 'present')]);
  assert.deepEqual(found.map((group) => group.keys), [['s1', 's3'], ['~bulk'], ['s2'], ['s4']]);
  assert.deepEqual(found[2].asked, { code: 'late', reason: '5' });
});

test('marks of a held change are read from their stored values', () => {
  assert.deepEqual(cellsOf({ s1: 'E28815000:sick', '~session': 'N5:strike' }), [cell('s1', null, 'E', 'sick'), cell('~session', null, 'N', 'strike')]);
});

test('the shortest time stands first, what is closed here last, and the rest as it came', () => {
  const request = (change: string, days: number | null): Request => ({ change, days_left: days }) as Request;
  const found = inOrder([request('locked', null), request('a', 2), request('b', 0), request('c', 2), request('locked too', null)]);
  assert.deepEqual(found.map((one) => one.change), ['b', 'a', 'c', 'locked', 'locked too']);
});

test('a moment becomes the school’s civil date, whatever zone the phone believes in, over the change of summer time', () => {
  // Cairo: +3 until the last Friday of October 2026 begins, +2 after.
  const midnight = (date: string): number => Date.parse(date + 'T00:00:00Z') - (date <= '2026-10-30' ? 3 : 2) * 36e5;
  for (const date of ['2026-10-29', '2026-10-30', '2026-10-31', '2026-11-01', '2026-12-31'])
    for (const [shift, expected] of [[0, date], [36e5 * 22, date], [500, date]] as const) assert.equal(dateAt(midnight(date) + shift, midnight), expected);
  assert.equal(dateAt(midnight('2026-11-26') - 2000, midnight), '2026-11-25');
});

test('a mark was made at one moment, or between two where its clock leaves doubt', () => {
  assert.equal(takenAt(['2026-11-22T06:00:00.000Z', '2026-11-22T06:01:00.000Z']).length, 1);
  assert.deepEqual(takenAt(['2026-11-22T06:00:00.000Z', '2026-11-22T09:00:00.000Z']), [1795327200000, 1795338000000]);
});

test('parts of a register’s name', () => {
  assert.deepEqual(named('eg-07-113/c-3a/2026-11-22/am2'), { classId: 'c-3a', date: '2026-11-22', session: 'am2' });
});

test('silence is no answer, and a refusal without a slug is not passed over', () => {
  assert.deepEqual([{ slug: 'timeout' }, { slug: 'busy' }, new Error('x')].map(slugOf), ['no-answer', 'busy', 'unknown']);
});

test('a rule’s refusal comes through the wire whole: name, both sentences, who, since when; cut to a screen’s worth', async () => {
  const problem = { type: '/problems/rule', retry: 'never', safe: true, rule: 'adjustment-locked', detail: 'Ended.', ar: 'انتهت المهلة. '.repeat(90), who: 'central', closed_on: '2026-11-25' };
  const fetch = async (): Promise<Response> => new Response(JSON.stringify(problem), { status: 409, headers: { 'Content-Type': 'application/problem+json' } });
  const ports = { monoMs: () => 0, later: () => () => undefined, online: () => true, origin: '', fetch } as unknown as ReturnType<typeof browserPorts>;
  const reply = await post(ports, '/v1/call', new Uint8Array());
  const rule = ruleOf(reply.problem)!;
  assert.deepEqual([rule.name, rule.en, rule.who, rule.closedOn, rule.ar.length], ['adjustment-locked', 'Ended.', 'central', '2026-11-25', 400]);
  assert.equal(civil(rule.closedOn), '2026-11-25');
  assert.equal(civil('2026-11-25T09:00:00.000Z'), null);
  assert.equal(ruleOf(new Error('no rule')), null);
});
