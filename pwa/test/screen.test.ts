/** The screens' pure parts: words, numbers, marks, links. What needs a page is in `tests/browser/`. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { plural } from '../src/i18n';
import { addDays, latin } from '../src/i18n/more';
import { ar } from '../src/i18n/ar';
import { arEnrol } from '../src/i18n/ar-enrol';
import { arMore } from '../src/i18n/ar-more';
import { en } from '../src/i18n/en';
import { enEnrol } from '../src/i18n/en-enrol';
import { enMore } from '../src/i18n/en-more';
import { Places, defaultLabel, installationMark } from '../src/screen/installation';
import { linkParts } from '../src/screen/link';
import { countMarks, nextCode, reasonOf, stepOf, valueOf, visible } from '../src/screen/marks';
import { problemText, whyText } from '../src/screen/more';
import { statusOf } from '../src/screen/status';
import type { State } from '../src/api';

test('Arabic counts registers with six plural forms', () => {
  const forms = [0, 1, 2, 3, 10, 11, 99, 100, 102, 103].map((count) => ar.waiting.indexOf(plural(ar.waiting, count)));
  assert.deepEqual(forms, [0, 1, 2, 3, 3, 4, 4, 5, 5, 3]);
});

/** Every text of a tree of words, with its path. */
const texts = (words: object, path = ''): [string, string][] =>
  Object.entries(words).flatMap(([key, value]): [string, string][] => (typeof value === 'string' ? [[path + key, value]] : texts(value, `${path}${key}.`)));
const holes = (text: string): string => (text.match(/\{\d\}/g) || []).sort().join();

test('English says everything Arabic says, with the same numbers in it', () => {
  for (const [source, translation] of [[ar, en], [arMore, enMore], [arEnrol, enEnrol]]) {
    const translated = new Map(texts(translation));
    for (const [path, text] of texts(source)) {
      assert.ok(translated.has(path), path);
      // A plural form that a language does without is empty there, or spells the number out.
      if (!/\.\d$/.test(path)) assert.equal(holes(translated.get(path)!), holes(text), path);
    }
    assert.equal(translated.size, texts(source).length);
  }
});

test('no Arabic text holds a Latin word, except names of things and placeholders', () => {
  const allowed = /^(lang|locale|dir|otherLanguage)$/;
  for (const [path, text] of texts({ ...ar, ...arMore, ...arEnrol })) if (!allowed.test(path)) assert.doesNotMatch(text, /[A-Za-z]/, path);
});

test('every problem an enrolment, a call or a sync can meet has words of its own', () => {
  const protocol = readFileSync(join(process.env.PWA!, '..', 'docs', 'protocol.md'), 'utf8');
  const enrolment = ['bad-code', 'code-locked', 'code-expired', 'code-used'];
  const others = ['unknown-device', 'revoked', 'relay-scope', 'forbidden', 'not-an-export', 'version', 'too-large', 'busy', 'storage', 'slow-down'];
  for (const slug of enrolment.concat(others)) {
    assert.ok(protocol.includes(`\`${slug}\``), slug);
    assert.ok(problemText(slug)[0].indexOf(slug) < 0, slug);
  }
  assert.ok(problemText('never-heard-of')[0].includes('never-heard-of'), 'an unknown slug is shown, so that it can be read out');
});

test('a tap goes round absent, late, present; it never ends in nothing', () => {
  assert.deepEqual([undefined, 'A', 'L', 'P', 'E'].map(nextCode), ['A', 'L', 'P', 'A', 'A']);
});

test('values are written in the grammar of the protocol', () => {
  assert.equal(valueOf('L', -5, '12'), 'L-5:12');
  assert.equal(reasonOf('E28815000:sick'), 'sick');
  assert.equal(reasonOf('P1'), undefined);
});

test('equal codes of two authors are no difference; different ones are both shown', () => {
  assert.deepEqual(visible(['P1', 'P2']), ['P2']);
  assert.deepEqual(visible(['A1', 'P2']), ['A1', 'P2']);
  assert.deepEqual(visible(undefined), []);
});

test('counts: official duty is not absence, no mark is neither', () => {
  const marks: Record<string, string | undefined> = { a: 'P1', b: 'D1', c: 'L1:5', d: 'A1', e: 'E1:sick' };
  const pupils = ['a', 'b', 'c', 'd', 'e', 'f'].map((id) => [id, id] as const);
  assert.deepEqual(countMarks(pupils, (id) => marks[id]), { present: 3, absent: 2, left: 1, of: 6 });
});

test('both digit sets are understood', () => {
  assert.equal(latin('١٢ ۳4'), '12 34');
});

test('a link names school and code; the school may hold dots', () => {
  assert.deepEqual(linkParts('#e=eg.07-113.BCDFGHJKLM'), { school: 'eg.07-113', code: 'BCDFGHJKLM' });
  assert.equal(linkParts('#r/c-3a/2026-11-22/day'), null);
  assert.equal(linkParts('#e=%E0%A4%A'), null, 'a broken address is no link');
});

test('days are counted as dates, over the change of summer time', () => {
  assert.equal(addDays('2026-10-30', -1), '2026-10-29');
  assert.equal(addDays('2026-03-01', -1), '2026-02-28');
});

test('the status line is red only when a person must act', () => {
  const calm = { storage: 'durable', notices: [], syncing: false, trouble: null, pending: 0, lastCompleteSyncAtMs: 1 } as unknown as State;
  // Fragments of text need a page; the kinds do not.
  Object.assign(globalThis, { document: { createElement: () => ({ setAttribute() {}, appendChild() {} }), createTextNode: String }, Node: class {} });
  const kinds = (['offline', 'no-answer', 'busy', 'slow-down', 'storage', 'unknown-device', 'revoked', null] as const).map((trouble) => {
    const { level, kind } = statusOf({ ...calm, trouble });
    return `${level} ${kind}`;
  });
  assert.deepEqual(kinds, ['wait offline', 'wait portal', 'wait busy', 'wait busy', 'wait busy', 'act help', 'act revoked', 'calm fine']);
  assert.equal(statusOf({ ...calm, storage: 'memory' }).level, 'act');
});

test('every slug of a settlement and of a refused change has words that say the work is safe and what to do', () => {
  const protocol = readFileSync(join(process.env.PWA!, '..', 'docs', 'protocol.md'), 'utf8');
  const slugsOf = (from: string, to: string): string[] => {
    const start = protocol.indexOf(from);
    assert.ok(start > 0, from);
    const part = protocol.slice(start + from.length, protocol.indexOf(to, start + from.length));
    return (part.match(/`[a-z-]+`/g) || []).map((slug) => slug.slice(1, -1));
  };
  const settled = slugsOf('Slugs of `settled`', '## 10').filter((slug) => slug !== 'settled');
  assert.ok(settled.length >= 13, String(settled));
  for (const slug of settled) {
    for (const words of [arMore, enMore]) assert.ok(words.why[slug], slug);
    assert.match(arMore.why[slug], /محفوظ/, slug);
    assert.match(enMore.why[slug], /kept/, slug);
    assert.doesNotMatch(whyText(slug), /[a-z]/, slug);
  }
  const refused = slugsOf('Refusals of single changes are verdicts, never problems:', '(refused)');
  assert.ok(refused.length >= 10, String(refused));
  for (const slug of refused) assert.equal(whyText(slug), arMore.why.refused.replace('{0}', slug));
  assert.ok(whyText('never-heard-of').includes('never-heard-of'));
  assert.deepEqual(Object.keys(arMore.why).sort(), Object.keys(enMore.why).sort());
});

test('a phone that keeps nothing never says that a register is saved', () => {
  const registers = new Map([['r', { register: 'r', step: 'saved' as const, values: new Map(), unsealed: 0, slugs: [], partial: false }]]);
  assert.equal(stepOf({ registers, storage: 'durable' }, 'r'), 'saved');
  assert.equal(stepOf({ registers, storage: 'memory' }, 'r'), 'unkept');
  assert.equal(stepOf({ registers, storage: 'memory' }, 'other'), 'none');
});

/** A browser's two places, as far as the mark needs them. */
function places(over: Partial<Places> = {}): Places & { kept: Map<string, string>; cached: Map<string, string> } {
  const kept = new Map<string, string>();
  const cached = new Map<string, string>();
  let next = 1;
  const cache = {
    match: async (key: string) => (cached.has(key) ? new Response(cached.get(key)) : undefined),
    put: async (key: string, response: Response) => void cached.set(key, await response.text()),
  };
  return {
    storage: { getItem: (key) => kept.get(key) ?? null, setItem: (key, value) => void kept.set(key, value) },
    caches: { open: async () => cache as unknown as Cache },
    random: (bytes) => new Uint8Array(bytes).fill(next++),
    userAgent: 'Mozilla/5.0 (Linux; Android 8.1.0; SM-J260F Build/M1AJB) AppleWebKit/537.36 Chrome/80 Mobile',
    kept, cached, ...over,
  };
}

test('a phone that comes back empty calls itself the same, as long as one of two places is left', async () => {
  const one = places();
  const label = await defaultLabel(one);
  assert.equal(label, 'SM-J260F ·0101');
  one.kept.clear();
  assert.equal(await defaultLabel(one), label, 'from the second place');
  one.cached.clear();
  assert.equal(await defaultLabel(one), label, 'put back into the first, and found there');
  assert.equal(one.cached.size, 1);
  one.kept.clear();
  one.cached.clear();
  assert.notEqual(await defaultLabel(one), label, 'all cleared: a new mark');
});

test('the mark needs neither place, and a label always fits', async () => {
  const full = (): never => { throw new DOMException('full', 'QuotaExceededError'); };
  assert.match(await installationMark(places({ storage: null, caches: null })), /^[0-9a-f]{16}$/);
  assert.match(await installationMark(places({ storage: { getItem: () => null, setItem: full }, caches: { open: () => Promise.reject(new Error('denied')) } })), /^[0-9a-f]{16}$/);
  assert.match(await installationMark(places({ storage: { getItem: () => 'not a mark', setItem: () => undefined } })), /^[0-9a-f]{16}$/);
  const long = await defaultLabel(places({ userAgent: `Mozilla/5.0 (Linux; Android 9; ${'X'.repeat(90)})` }));
  assert.ok(long.length <= 40, long);
  assert.equal(await defaultLabel(places({ userAgent: 'strange' })), '·0101');
});
