/** The change codec and the merge, against the real @automerge/automerge. */
import * as A from '@automerge/automerge';
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { deflateRawSync } from 'node:zlib';
import { Refusal, hex } from '../src/core/bytes';
import { unhex } from '../src/core/bytes-more';
import { Change, chunkOf, encodeChange, parseChange } from '../src/core/change';
import { deflate } from '../src/core/frame';
import { frontier, merge } from '../src/core/history';
import { sha256 } from '../src/core/sha256';
import { Author, VALUES, seeded, zlibInflate as inflate } from './support';

const KEYS = ['s1', 's2', 's10', 'eg-07.A_b', '~bulk'];
const actorsOf = (seed: number, count: number): string[] => Array.from({ length: count }, (_, i) => hex(seeded(seed * 31 + i).bytes(16)));

test('our SHA-256 equals the platform at every length around a block', () => {
  const random = seeded(1);
  for (const length of [0, 1, 3, 54, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 1000, 16384]) {
    const bytes = random.bytes(length);
    assert.equal(hex(sha256(bytes)), createHash('sha256').update(bytes).digest('hex'));
  }
});

test('histories we write load in Automerge with equal heads, values and conflict sets', () => {
  let conflicts = 0;
  let changesMade = 0;
  for (let seed = 1; seed <= 60; seed++) {
    const random = seeded(seed);
    const authors = actorsOf(seed, 2 + random.int(3)).map((actor) => new Author(actor, random));
    for (let step = 0; step < 12; step++) {
      const author = random.pick(authors);
      author.write(KEYS);
      changesMade++;
      if (random.int(2)) author.take(random.pick(authors).known.values());
    }
    const all = new Map(authors.flatMap((author) => [...author.known]));
    const history = merge(all.values());
    assert.equal(history.merged.size, all.size, 'nothing of our own is set aside');
    let doc = A.init<Record<string, string>>();
    [doc] = A.applyChanges(doc, [...all.values()].map(({ chunk }) => chunk));
    assert.deepEqual([...A.getHeads(doc)].sort(), history.heads);
    assert.deepEqual(Object.keys(doc).sort(), [...history.visible.keys()].sort());
    for (const [key, puts] of history.visible) {
      assert.equal(String(doc[key]), puts[puts.length - 1].value, 'the winner');
      const theirs = A.getConflicts(doc, key);
      const values = theirs ? Object.entries(theirs).map(([id, value]) => [id, String(value)]) : [];
      if (puts.length > 1) {
        conflicts++;
        assert.deepEqual(values.sort(), puts.map(({ id, value }) => [id[0] + '@' + id[1], value]).sort());
      } else assert.ok(values.length <= 1);
    }
    // Saving verifies every hash again on load.
    assert.deepEqual([...A.getHeads(A.load(A.save(doc)))].sort(), history.heads);
    for (const bytes of A.getAllChanges(doc)) assert.ok(all.has(A.decodeChange(bytes).hash));
  }
  assert.ok(changesMade > 500 && conflicts > 50, `${changesMade} changes, ${conflicts} conflicts`);
});

test('every change Automerge makes in our profile parses and re-encodes to the same bytes', () => {
  let parsed = 0;
  for (let seed = 1; seed <= 40; seed++) {
    const random = seeded(1000 + seed);
    let docs = actorsOf(seed, 3).map((actor) => A.init<Record<string, A.ImmutableString>>({ actor }));
    for (let step = 0; step < 10; step++) {
      const i = random.int(docs.length);
      docs[i] = A.change(docs[i], { time: 1763625600, message: undefined }, (doc) => {
        for (let left = 1 + random.int(4); left--; ) doc[random.pick(KEYS.slice(0, 4))] = new A.ImmutableString(random.pick(VALUES));
      });
      const j = random.int(docs.length);
      if (i !== j) docs[j] = A.merge(docs[j], docs[i]);
    }
    const merged = docs.reduce((a, b) => A.merge(a, b));
    const ours: Change[] = [];
    for (const bytes of A.getAllChanges(merged)) {
      const decoded = A.decodeChange(bytes);
      const change = parseChange(bytes, inflate);
      assert.equal(change.hash, decoded.hash);
      const again = encodeChange(change);
      assert.equal(again.hash, decoded.hash);
      if (bytes[8] === 1) assert.equal(hex(again.chunk), hex(bytes));
      ours.push(change);
      parsed++;
    }
    const history = merge(ours.reverse());
    assert.deepEqual([...A.getHeads(merged)].sort(), history.heads);
    for (const [key, puts] of history.visible) assert.equal(String(merged[key]), puts[puts.length - 1].value);
  }
  assert.ok(parsed > 200, `${parsed} changes`);
});

test('a deflated chunk is the same change, smaller, and only readable with an inflater', () => {
  const author = new Author(actorsOf(7, 1)[0], seeded(7));
  const draft = { actor: author.actor, seq: 1, startOp: 1, timeS: 1763625600, deps: [] };
  const change = encodeChange({ ...draft, ops: Array.from({ length: 40 }, (_, i) => ({ key: 's' + (10000 + i), value: 'P2880' + (1000 + i * 7), preds: [] })) });
  const packed = deflate(change.chunk, change.hash);
  assert.ok(packed.length < change.chunk.length);
  assert.equal(parseChange(packed, inflate).hash, change.hash);
  assert.equal(hex(parseChange(packed, inflate).chunk), hex(change.chunk));
  assert.throws(() => parseChange(packed), { slug: 'chunk-type' });
  const [doc] = A.applyChanges(A.init<Record<string, string>>(), [packed]);
  assert.deepEqual([...A.getHeads(doc)], [change.hash], 'Automerge reads our deflated form');
});

test('a deflate bomb and trailing bytes behind the stream are refused', () => {
  const bomb = deflateRawSync(Buffer.alloc(1 << 20));
  const digest = new Uint8Array(32);
  assert.throws(() => parseChange(chunkOf(2, bomb, digest), inflate), { slug: 'chunk-size' });
  const trailing = Buffer.concat([deflateRawSync(Buffer.from('abc')), Buffer.from('x')]);
  assert.throws(() => parseChange(chunkOf(2, trailing, digest), inflate), { slug: 'chunk-type' });
});

test('a run of a million operations is refused before it is expanded', () => {
  const column = [0xc0, 0x84, 0x3d, 1]; // run of 1,000,000 puts
  const actor = Array(16).fill(7);
  const body = Uint8Array.from([0, 16, ...actor, 1, 1, 0, 0, 0, 1, 0x42, column.length, ...column]);
  const head = Uint8Array.from([1, body.length, ...body]);
  const started = performance.now();
  assert.throws(() => parseChange(chunkOf(1, body, sha256(head))), { slug: 'too-many-ops' });
  assert.ok(performance.now() - started < 50);
});

test('mutated changes are refused with a slug of the protocol or are other valid changes, never anything else', () => {
  const slugs = new Set(['chunk-size', 'chunk-magic', 'chunk-type', 'chunk-checksum', 'too-many-ops', 'bad-mark', 'not-canonical', 'profile']);
  const seen = new Map<string, number>();
  const random = seeded(42);
  const authors = actorsOf(42, 3).map((actor) => new Author(actor, random));
  for (let i = 0; i < 30; i++) {
    const author = random.pick(authors);
    author.write(KEYS);
    random.pick(authors).take(author.known.values());
  }
  const corpus = [...new Map(authors.flatMap((author) => [...author.known])).values()];
  for (let round = 0; round < 20000; round++) {
    const source = random.pick(corpus).chunk;
    let bytes = Array.from(source);
    for (let edits = 1 + random.int(3); edits--; ) {
      // Mostly behind the checksum, which is then repaired: otherwise every mutant would die at the door.
      const at = random.int(10) ? 9 + random.int(bytes.length - 9) : random.int(bytes.length);
      const kind = random.int(4);
      if (kind === 0) bytes[at] = random.int(256);
      else if (kind === 1) bytes[at] ^= 1 << random.int(8);
      else if (kind === 2) bytes.splice(at, 1 + random.int(3));
      else bytes.splice(at, 0, ...random.bytes(1 + random.int(3)));
    }
    let mutant: Uint8Array = Uint8Array.from(bytes);
    if (random.int(10)) {
      const start = source[9] > 127 ? 11 : 10;
      const body = mutant.subarray(start);
      const head: number[] = [1, ...(body.length > 127 ? [(body.length % 128) + 128, body.length >> 7] : [body.length])];
      mutant = chunkOf(1, body, sha256(Uint8Array.from([...head, ...body])));
    }
    try {
      const change = parseChange(mutant);
      assert.equal(hex(encodeChange(change).chunk), hex(mutant), 'what is admitted is canonical');
      seen.set('admitted', (seen.get('admitted') ?? 0) + 1);
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      assert.ok(slugs.has(cause.slug), cause.slug);
      seen.set(cause.slug, (seen.get(cause.slug) ?? 0) + 1);
    }
  }
  for (const slug of slugs) if (slug !== 'chunk-size') assert.ok(seen.has(slug), `no mutant met ${slug}: ${JSON.stringify([...seen])}`);
});

test('the merge depends on the set of changes only, and names what it cannot merge', () => {
  const random = seeded(5);
  const [a, b] = actorsOf(5, 2).map((actor) => new Author(actor, random));
  const first = a.write(KEYS);
  b.take([first]);
  const second = b.write(KEYS);
  a.take([second]);
  const third = a.write(KEYS);
  const rival = encodeChange({ ...third, ops: [{ key: 's1', value: 'A1', preds: [] }] });
  const wrong = encodeChange({ actor: unhexed(9), seq: 2, startOp: 1, timeS: 0, deps: [], ops: [{ key: 's1', value: 'A1', preds: [] }] });
  const orders = [
    [first, second, third, rival, wrong],
    [wrong, rival, third, second, first, first],
    [third, wrong, first, rival, second],
  ];
  const results = orders.map((order) => merge(order));
  for (const result of results) {
    assert.deepEqual(result.heads, results[0].heads);
    assert.deepEqual([...result.visible], [...results[0].visible]);
    assert.deepEqual(result.equivocations, [[third.hash, rival.hash].sort()[1]]);
    assert.deepEqual([...result.inconsistent], [[wrong.hash, 'seq']]);
  }
  assert.deepEqual(merge([third, second]).pending, [second.hash, third.hash].sort());
});

const unhexed = (byte: number): string => hex(new Uint8Array(16).fill(byte));

test('a change that would erase a mark or names a predecessor of another key is set aside', () => {
  const put = encodeChange({ actor: unhexed(1), seq: 1, startOp: 1, timeS: 0, deps: [], ops: [{ key: 's1', value: 'P1', preds: [] }] });
  const next = { actor: unhexed(1), seq: 2, startOp: 2, timeS: 0, deps: [put.hash] };
  const erase = encodeChange({ ...next, ops: [{ key: 's1', value: null, preds: [[1, unhexed(1)]] }] });
  const other = encodeChange({ ...next, ops: [{ key: 's2', value: 'P1', preds: [[1, unhexed(1)]] }] });
  assert.equal(merge([put, erase]).inconsistent.get(erase.hash), 'delete erases the mark');
  assert.equal(merge([put, other]).inconsistent.get(other.hash), 'predecessor unknown');
});

test('40 concurrent authors cannot stop the next change', () => {
  const random = seeded(11);
  const authors = actorsOf(11, 40).map((actor) => new Author(actor, random));
  authors.forEach((author) => author.write(['s1']));
  const all = authors.flatMap((author) => [...author.known.values()]);
  const history = merge(all);
  assert.equal(history.heads.length, 40);
  const { deps, maxOp, visible, seq } = frontier(history, authors[3].actor);
  assert.equal(deps.length, 32);
  const ops = [{ key: 's1', value: 'P5', preds: visible.get('s1')!.map((put) => put.id).slice(-16) }];
  const change = encodeChange({ actor: authors[3].actor, seq: seq + 1, startOp: maxOp + 1, timeS: 0, deps, ops });
  const after = merge([...all, change]);
  assert.ok(after.merged.has(change.hash), after.inconsistent.get(change.hash));
});

test('unhex and hex are inverse', () => {
  const bytes = seeded(3).bytes(40);
  assert.deepEqual(unhex(hex(bytes)), bytes);
});
