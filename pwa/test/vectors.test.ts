/** The vectors that Python and this twin must both produce, both accept and both refuse (tests/vectors/README.md). */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { hex } from '../src/core/bytes';
import { unhex } from '../src/core/bytes-more';
import { Change, Draft, actorOf, encodeChange, parseChange } from '../src/core/change';
import { effectsOf, openAnswer, readAnswer, unpackShortest } from '../src/core/exchange';
import { Fold } from '../src/core/fold';
import { readBundle, signedPart, writeBundle } from '../src/core/frame';
import { merge } from '../src/core/history';
import { deviceId, verify } from '../src/core/keys';
import { Ledger, frameHash, shortNumber } from '../src/core/ledger';
import { Value, pack, unpack } from '../src/core/msgpack';
import { zlibInflate as inflate } from './support';

const DIR = join(process.env.PWA!, '..', 'tests', 'vectors');
// Cases come from JSON: their shape is checked by the assertions that read them.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
const load = (name: string): any => JSON.parse(readFileSync(join(DIR, name + '.json'), 'utf8'));
assert.ok(existsSync(DIR), 'the vectors are part of the repository');

interface Fields { actor: string; seq: number; start_op: number; time_s: number; deps: string[]; ops: [string, string | null, [number, string][]][] }

const draftOf = (fields: Fields): Draft => ({
  actor: fields.actor, seq: fields.seq, startOp: fields.start_op, timeS: fields.time_s, deps: fields.deps,
  ops: fields.ops.map(([key, value, preds]) => ({ key, value, preds })),
});
const fieldsOf = ({ actor, seq, startOp, timeS, deps, ops }: Change): Fields => ({
  actor, seq, start_op: startOp, time_s: timeS, deps: [...deps], ops: ops.map(({ key, value, preds }) => [key, value, preds.map(([n, a]) => [n, a])]),
});

test('changes: encoding gives these bytes, parsing both forms gives these fields', () => {
  const cases = load('changes');
  assert.ok(cases.length >= 20);
  for (const { name, fields, chunk, hash, deflated } of cases) {
    const change = encodeChange(draftOf(fields));
    assert.equal(hex(change.chunk), chunk, name);
    assert.equal(change.hash, hash, name);
    for (const form of [chunk, deflated]) {
      const parsed = parseChange(unhex(form), inflate);
      assert.deepEqual(fieldsOf(parsed), fields, name);
      assert.equal(parsed.hash, hash, name);
      assert.equal(hex(parsed.chunk), chunk, name);
    }
  }
});

test('refused chunks: each is refused with the same code', () => {
  const cases = load('refused_chunks');
  assert.ok(cases.length >= 100);
  const different: string[] = [];
  for (const { name, chunk, code } of cases) {
    let got = 'accepted';
    try {
      parseChange(unhex(chunk), inflate);
    } catch (cause) {
      got = (cause as { slug?: string }).slug ?? String(cause);
    }
    if (got !== code) different.push(`${name}: ${got} instead of ${code}`);
  }
  assert.deepEqual(different, []);
});

test('histories: any order gives these heads, values and sets aside', () => {
  const cases = load('histories');
  assert.ok(cases.length >= 20);
  for (const one of cases) {
    const changes: Change[] = one.chunks.map((chunk: string) => parseChange(unhex(chunk), inflate));
    for (const order of [changes, changes.slice().reverse(), changes.concat(changes)]) {
      const history = merge(order);
      const visible: Record<string, unknown[]> = {};
      history.visible.forEach((puts, key) => {
        visible[key] = puts.map(({ id, value }) => {
          const owner = [...history.merged.values()].find((c) => c.actor === id[1] && id[0] >= c.startOp && id[0] < c.startOp + c.ops.length);
          return [value, id[0], id[1], owner!.hash];
        });
      });
      assert.deepEqual([...history.heads], one.heads, one.name);
      assert.deepEqual(visible, one.visible, one.name);
      assert.deepEqual([...history.pending].sort(), one.pending.slice().sort(), one.name);
      assert.deepEqual(Object.fromEntries(history.inconsistent), one.inconsistent, one.name);
      assert.deepEqual([...history.equivocations].sort(), one.equivocations.slice().sort(), one.name);
      assert.equal(history.maxOp, one.max_op, one.name);
    }
  }
});

test('frames: packing gives these bytes, hashes and signatures hold', async () => {
  const { public_key, other_public_key, accepted, bundles, refused_bundles } = load('frames');
  assert.ok(accepted.length >= 5);
  for (const { name, fields, signed, signature, hash } of accepted) {
    const { clock, ask } = fields;
    const bytes = signedPart({
      env: fields.env, school: fields.school, device: unhex(fields.device), number: fields.number, prev: unhex(fields.prev),
      clock: { wallMs: clock.wall_ms, monoMs: clock.mono_ms, session: unhex(clock.session), beacon: clock.beacon },
      changes: fields.changes.map(([register, delegation, chunk]: [string, string | null, string]) => ({ register, delegation, chunk: unhex(chunk) })),
      ask: ask && {
        nonce: ask.nonce === null ? null : unhex(ask.nonce), cursor: ask.cursor === null ? null : unhex(ask.cursor),
        have: ask.have === null ? null : unhex(ask.have), app: ask.app, unsent: ask.unsent, done: ask.done,
      },
    });
    assert.equal(hex(bytes), signed, name);
    assert.equal(hex(frameHash(unhex(signed + signature))), hash.slice(0, 32), name);
    assert.equal(await verify(unhex(public_key), unhex(signed), unhex(signature)), true, name);
    assert.equal(await verify(unhex(other_public_key), unhex(signed), unhex(signature)), false, name);
  }
  for (const { name, file, frames, truncated } of bundles) {
    const read = readBundle(unhex(file));
    assert.deepEqual(read.frames.map(hex), frames, name);
    assert.equal(read.truncated, truncated, name);
    if (!truncated) assert.equal(hex(writeBundle(frames.map(unhex))), file, name);
  }
  for (const { name, file, code } of refused_bundles) assert.throws(() => readBundle(unhex(file)), { slug: code }, name);
});

/** A value as the vectors write it. */
function valueOf(v: unknown): Value {
  if (Array.isArray(v)) return v.map(valueOf);
  if (v === null || typeof v !== 'object') return v as Value;
  const o = v as Record<string, unknown>;
  if ('bin' in o) return unhex(o.bin as string);
  if ('bin_zeros' in o) return new Uint8Array(o.bin_zeros as number);
  if ('a_times' in o) return 'a'.repeat(o.a_times as number);
  return Array(o.array_of_zeros as number).fill(0);
}

/** Caps of the server's request reader; on the phone the size of the answer bounds them. */
const SERVER_CAPS = new Set(['array of 4,097', 'bytes over the limit']);

test('msgpack: these values have these bytes, and these bytes are no value', () => {
  const { accepted, refused } = load('wire');
  assert.ok(accepted.length >= 40 && refused.length >= 30);
  for (const { name, value, bytes, head, length, sha256 } of accepted) {
    const packed = pack(valueOf(value));
    if (bytes !== undefined) assert.equal(hex(packed), bytes, name);
    else {
      assert.equal(hex(packed).slice(0, head.length), head, name);
      assert.equal(packed.length, length, name);
      assert.equal(createHash('sha256').update(packed).digest('hex'), sha256, name);
    }
    assert.deepEqual(unpackShortest(packed), valueOf(value), name);
  }
  for (const { name, bytes } of refused) {
    if (SERVER_CAPS.has(name)) continue;
    assert.throws(() => unpackShortest(unhex(bytes)), { slug: 'bad-frame' }, name);
  }
});

test('keys: device, short number, actor and signatures', async () => {
  const { devices, actors, signatures } = load('keys');
  for (const one of devices) {
    assert.equal(hex(deviceId(unhex(one.public_key))), one.device);
    assert.equal(shortNumber(unhex(one.public_key)), one.short);
  }
  for (const one of actors) assert.equal(actorOf(unhex(one.device), unhex(one.nonce)), one.actor);
  for (const one of signatures) {
    assert.equal(await verify(unhex(one.public_key), unhex(one.message), unhex(one.signature)), one.valid, one.name);
  }
});

test('answers: these are the server’s, those are no answer', async () => {
  const { server_key, request, accepted, refused, payload_items } = load('answers');
  const take = async (body: string): Promise<ReturnType<typeof readAnswer> & { payload: Uint8Array | null }> => {
    const signed = openAnswer(unhex(body));
    assert.ok(await verify(unhex(server_key), signed.signed, signed.signature), 'signature');
    return { ...readAnswer(signed, unhex(request)), payload: signed.payload };
  };
  for (const one of accepted) {
    const answer = await take(one.body);
    assert.equal(answer.serverMs, one.server_ms, one.name);
    assert.equal(answer.epoch, one.epoch, one.name);
    assert.equal(hex(answer.nonce), one.nonce, one.name);
    assert.equal(answer.lastNumber, one.last_number, one.name);
    const receipts = answer.receipts.map((entry) =>
      typeof entry === 'string' ? entry : (entry as Value[]).map((verdict) => (typeof verdict === 'number' ? [verdict, null] : verdict)),
    );
    assert.deepEqual(receipts, one.receipts, one.name);
    assert.equal(answer.payload && hex(answer.payload), one.payload, one.name);
    if (one.name === 'a payload') {
      const items = (unpack(answer.payload!) as Value[])[2] as Value[];
      assert.equal(items.length, payload_items.length);
      const fold = new Fold();
      const effects = effectsOf(answer.payload!, fold, new Ledger(fold), 0);
      assert.deepEqual(effects.rows.map(({ kind }) => kind), ['roster', 'calendar', 'settled', 'directive']);
      assert.equal(effects.level, 'rebuild');
      assert.ok(effects.want.length);
    }
  }
  for (const { name, body } of refused) await assert.rejects(take(body), Error, name);
});
