/**
 * The msgpack of docs/protocol.md: arrays, integers, booleans, nil, str and bin only. The writer uses the shortest form;
 * the reader refuses every other type, integers beyond 2^53, bad UTF-8, deep nesting, lengths beyond the input and
 * trailing bytes, so hostile bytes cost no more memory than a small multiple of their own size.
 */
import { Refusal, concat, text, utf8 } from './bytes';

export type Value = null | boolean | number | string | Uint8Array | readonly Value[];

const MAX_DEPTH = 8; // payloads nest 4 deep; frames 3
const bad = (why: string): Refusal => new Refusal('bad-frame', why);

/** `size` big-endian bytes of `value` after the tag byte. */
function tagged(tag: number, size: number, value: number): Uint8Array {
  const out = new Uint8Array(size + 1);
  out[0] = tag;
  // Division, not shifts: values reach 2^53; adding 2^64 is not needed because a negative floor wraps byte by byte.
  for (let i = size, rest = value; i; i--, rest = Math.floor(rest / 256)) out[i] = rest;
  return out;
}

const sized = (length: number, tag8: number, tag16: number): Uint8Array =>
  length < 256 && tag8 ? tagged(tag8, 1, length) : length < 65536 ? tagged(tag16, 2, length) : tagged(tag16 + 1, 4, length);

function integer(n: number): Uint8Array {
  if (!Number.isSafeInteger(n)) throw bad('not an integer');
  if (n >= -32 && n < 128) return tagged(n, 0, 0);
  const magnitude = n < 0 ? -n * 2 - 1 : n; // a signed byte holds down to -128: compare as if unsigned
  const step = magnitude < 256 ? 0 : magnitude < 65536 ? 1 : magnitude < 4294967296 ? 2 : 3;
  return tagged((n < 0 ? 0xd0 : 0xcc) + step, 1 << step, n);
}

function write(out: Uint8Array[], value: Value): void {
  if (value === null) out.push(tagged(0xc0, 0, 0));
  else if (typeof value === 'boolean') out.push(tagged(value ? 0xc3 : 0xc2, 0, 0));
  else if (typeof value === 'number') out.push(integer(value));
  else if (typeof value === 'string') {
    const bytes = utf8(value);
    out.push(bytes.length < 32 ? tagged(0xa0 + bytes.length, 0, 0) : sized(bytes.length, 0xd9, 0xda), bytes);
  } else if (value instanceof Uint8Array) out.push(sized(value.length, 0xc4, 0xc5), value);
  else {
    out.push(value.length < 16 ? tagged(0x90 + value.length, 0, 0) : sized(value.length, 0, 0xdc));
    for (const item of value) write(out, item);
  }
}

/** The bytes of `value`, each part in its shortest form. */
export function pack(value: Value): Uint8Array {
  const out: Uint8Array[] = [];
  write(out, value);
  return concat(out);
}

/** The value of `bytes`; throws {@link Refusal} `bad-frame` for anything but exactly one value of the subset. */
export function unpack(bytes: Uint8Array): Value {
  let at = 0;
  const take = (length: number): Uint8Array => {
    if (length > bytes.length - at) throw bad('cut short');
    return bytes.subarray(at, (at += length));
  };
  const number = (size: number): number => take(size).reduce((n, byte) => n * 256 + byte, 0);
  const str = (length: number): string => text(take(length), 'bad-frame');
  const list = (length: number, depth: number): Value[] => {
    if (depth === MAX_DEPTH || length > bytes.length - at) throw bad('lengths');
    const out: Value[] = [];
    while (length--) out.push(read(depth + 1));
    return out;
  };
  const read = (depth: number): Value => {
    const tag = number(1);
    if (tag < 0x80) return tag;
    if (tag >= 0xe0) return tag - 256;
    if (tag >= 0xa0 && tag < 0xc0) return str(tag - 0xa0);
    if (tag >= 0x90 && tag < 0xa0) return list(tag - 0x90, depth);
    if (tag === 0xc0) return null;
    if (tag === 0xc2 || tag === 0xc3) return tag === 0xc3;
    if (tag >= 0xc4 && tag <= 0xc6) return take(number(1 << (tag - 0xc4)));
    if (tag >= 0xd9 && tag <= 0xdb) return str(number(1 << (tag - 0xd9)));
    if (tag === 0xdc || tag === 0xdd) return list(number(tag === 0xdc ? 2 : 4), depth);
    if (tag >= 0xcc && tag <= 0xd3) {
      const signed = tag >= 0xd0;
      const size = 1 << (tag & 3);
      const negative = signed && bytes[at] > 127;
      // Sum the complement of a negative number: 2^64 - n would not be exact in a double.
      const n = negative ? -1 - take(size).reduce((sum, byte) => sum * 256 + 255 - byte, 0) : number(size);
      if (!Number.isSafeInteger(n)) throw bad('integer too large');
      return n;
    }
    throw bad('type');
  };
  const value = read(0);
  if (at !== bytes.length) throw bad('trailing bytes');
  return value;
}
