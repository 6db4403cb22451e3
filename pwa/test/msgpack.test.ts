/** The msgpack subset, against @msgpack/msgpack. */
import { decode, encode } from '@msgpack/msgpack';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Refusal, hex } from '../src/core/bytes';
import { Value, pack, unpack } from '../src/core/msgpack';
import { Random, seeded } from './support';

const EDGES = [0, 1, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, Number.MAX_SAFE_INTEGER];
const INTEGERS = [...EDGES, ...EDGES.map((n) => -n), -31, -32, -33, -127, -128, -129, -32767, -32768, -32769, -2147483648, -2147483649];

function value(random: Random, depth: number): Value {
  const kind = random.int(depth < 4 ? 7 : 6);
  if (kind === 0) return null;
  if (kind === 1) return random.int(2) === 0;
  if (kind === 2) return random.pick(INTEGERS) || 0;
  if (kind === 3) return random.pick(['', 'محفوظ', 'x'.repeat(31), 'x'.repeat(32), 'x'.repeat(255), 'x'.repeat(256), '\ufeffbom']);
  if (kind === 4) return random.bytes(random.pick([0, 1, 255, 256]));
  if (kind === 5) return random.int(100);
  return Array.from({ length: random.pick([0, 1, 3, 15, 16]) }, () => value(random, depth + 1));
}

test('every value of the subset has the bytes of the reference encoder and reads back', () => {
  const random = seeded(1);
  for (let i = 0; i < 3000; i++) {
    const one = value(random, 0);
    const bytes = pack(one);
    assert.equal(hex(bytes), hex(encode(one)));
    assert.deepEqual(unpack(bytes), one);
  }
  for (const length of [65535, 65536]) assert.equal(hex(pack(new Uint8Array(length))), hex(encode(new Uint8Array(length))));
  for (const n of INTEGERS) assert.equal(unpack(pack(n)), n || 0);
});

test('maps, floats, extensions, cut and trailing bytes, bad text and deep nesting are refused', () => {
  const bad = [
    [0x80], [0x81, 1, 1], [0xca, 0, 0, 0, 0], [0xcb, 0, 0, 0, 0, 0, 0, 0, 0], [0xd4, 1, 1], [0xc7, 0, 0], [0xc1], [], [1, 1], [0xc4, 2, 1],
    [0xa1, 0xff], [0xdd, 0xff, 0xff, 0xff, 0xff], [0xc6, 0xff, 0xff, 0xff, 0xff], [0xcf, 0, 0x20, 0, 0, 0, 0, 0, 0],
    [0xcf, 255, 255, 255, 255, 255, 255, 255, 255], [0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], Array(20).fill(0x91),
  ];
  for (const bytes of bad) assert.throws(() => unpack(Uint8Array.from(bytes)), { slug: 'bad-frame' }, String(bytes));
});

test('random bytes are read as the reference reads them, or refused', () => {
  const random = seeded(2);
  let read = 0;
  for (let i = 0; i < 20000; i++) {
    const bytes = random.bytes(1 + random.int(12));
    let ours: Value;
    try {
      ours = unpack(bytes);
    } catch (cause) {
      assert.ok(cause instanceof Refusal, String(cause));
      continue;
    }
    assert.deepEqual(ours, decode(bytes));
    read++;
  }
  assert.ok(read > 500);
});
