/**
 * One change of one register: an Automerge change chunk of the narrow profile (docs/protocol.md section 2).
 *
 * The JS twin of `clientcore/change.py`: same bytes, same refusals. The rule that carries most of the weight is the last
 * one: what was parsed, encoded again, must equal the input. Actors and hashes are lower-case hex here: strings compare
 * like the bytes they stand for and can be keys of a Map.
 */
import { Refusal, concat, hex, text, utf8 } from './bytes';
import { equal, unhex } from './bytes-more';
import { isKey, isMark } from './register';
import { sha256 } from './sha256';

/** `[counter, actor]`: the name of one operation; their order is Automerge's. */
export type OpId = readonly [counter: number, actor: string];

/** Put `value` at `key`, or (null) delete the losers named by `preds`. */
export interface Op {
  readonly key: string;
  readonly value: string | null;
  readonly preds: readonly OpId[];
}

export interface Draft {
  readonly actor: string;
  readonly seq: number;
  readonly startOp: number;
  readonly timeS: number;
  readonly deps: readonly string[];
  readonly ops: readonly Op[];
}

/** A change; `hash` is its identity, `chunk` its plain (type 1) bytes. */
export interface Change extends Draft {
  readonly hash: string;
  readonly chunk: Uint8Array;
}

/** Raw DEFLATE that gives up beyond `limit` bytes and on trailing input. Only the exchange carries one. */
export type Inflate = (packed: Uint8Array, limit: number) => Uint8Array;

export const CHUNK_BYTES_MAX = 16384;
export const OPS_MAX = 256;
export const DEPS_MAX = 32;
export const PREDS_MAX = 16;
const COUNTER_MAX = 0x80000000;
const MAGIC = [0x85, 0x6f, 0x4a, 0x83];
const PUT = 1;
const DELETE = 3;
const STRING = 6;
/** key, insert, action, value meta, value, predecessor count, actor, counter */
const COLUMNS = [0x15, 0x34, 0x42, 0x56, 0x57, 0x70, 0x71, 0x73];

const refuse = (slug: string, why?: string): never => {
  throw new Refusal(slug, why);
};

// ---- writing: byte lists, because everything here is a few hundred bytes

type Bytes = number[];

function uleb(out: Bytes, n: number): void {
  for (; n > 127; n = Math.floor(n / 128)) out.push((n % 128) + 128);
  out.push(n);
}

function sleb(out: Bytes, n: number): void {
  for (;;) {
    const low = ((n % 128) + 128) % 128;
    n = Math.floor(n / 128);
    if (n === (low < 64 ? 0 : -1)) {
      out.push(low);
      return;
    }
    out.push(low + 128);
  }
}

function raw(out: Bytes, bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; i++) out.push(bytes[i]);
}

function counted(out: Bytes, bytes: Uint8Array): void {
  uleb(out, bytes.length);
  raw(out, bytes);
}

/** Run-length form: a run of two or more equal values, or a literal of the lone values between runs. */
function runs<T>(values: readonly T[], put: (out: Bytes, value: T) => void): Bytes {
  const out: Bytes = [];
  for (let at = 0; at < values.length; ) {
    let end = at + 1;
    while (end < values.length && values[end] === values[at]) end++;
    if (end - at > 1) {
      sleb(out, end - at);
      put(out, values[at]);
    } else {
      while (end < values.length && values[end] !== values[end + 1]) end++;
      sleb(out, at - end);
      while (at < end) put(out, values[at++]);
    }
    at = end;
  }
  return out;
}

/** The one canonical spelling of a change's body. */
function bodyOf(change: Draft): Uint8Array {
  const { actor, ops } = change;
  const actors: string[] = [];
  const meta: number[] = [];
  const values: Bytes = [];
  const counters: number[] = [];
  let previous = 0;
  const preds = ([] as OpId[]).concat(...ops.map((op) => op.preds as OpId[]));
  for (const [counter, name] of preds) {
    if (name !== actor && actors.indexOf(name) < 0) actors.push(name);
    counters.push(counter - previous);
    previous = counter;
  }
  const table = [actor].concat(actors.sort());
  for (const { value } of ops) {
    const bytes = utf8(value || '');
    meta.push(value === null ? 0 : bytes.length * 16 + STRING);
    raw(values, bytes);
  }
  const insert: Bytes = [];
  uleb(insert, ops.length);
  const columns = [
    runs(ops.map((op) => op.key), (out, key) => counted(out, utf8(key))),
    insert,
    runs(ops.map((op) => (op.value === null ? DELETE : PUT)), uleb),
    runs(meta, uleb),
    values,
    runs(ops.map((op) => op.preds.length), uleb),
    runs(preds.map((pred) => table.indexOf(pred[1])), uleb),
    runs(counters, sleb),
  ];
  const out: Bytes = [];
  uleb(out, change.deps.length);
  change.deps.slice().sort().forEach((dep) => raw(out, unhex(dep)));
  counted(out, unhex(actor));
  uleb(out, change.seq);
  uleb(out, change.startOp);
  sleb(out, change.timeS);
  out.push(0, actors.length); // no message
  actors.forEach((name) => counted(out, unhex(name)));
  out.push(columns.filter((column) => column.length).length);
  columns.forEach((column, i) => {
    if (column.length) {
      uleb(out, COLUMNS[i]);
      uleb(out, column.length);
    }
  });
  columns.forEach((column) => column.forEach((byte) => out.push(byte)));
  return Uint8Array.from(out);
}

/** Frame a body as a chunk of `type`; `digest` gives the checksum, always over the plain form. */
export function chunkOf(type: number, body: Uint8Array, digest: Uint8Array): Uint8Array {
  const out = MAGIC.slice();
  raw(out, digest.subarray(0, 4));
  out.push(type);
  counted(out, body);
  return Uint8Array.from(out);
}

function digestOf(body: Uint8Array): Uint8Array {
  const head: Bytes = [1];
  uleb(head, body.length);
  return sha256(concat([Uint8Array.from(head), body]));
}

/** Build a change. What it returns has passed {@link parseChange}: nothing invalid is ever sealed. */
export function encodeChange(draft: Draft): Change {
  const body = bodyOf(draft);
  return parseChange(chunkOf(1, body, digestOf(body)));
}

// ---- reading

/** A cursor over bytes; every read is bounded and refuses a number that is not in its shortest form. */
class Cursor {
  constructor(
    readonly bytes: Uint8Array,
    public at = 0,
  ) {}

  more(): boolean {
    return this.at < this.bytes.length;
  }

  take(length: number): Uint8Array {
    if (length > this.bytes.length - this.at) refuse('profile', 'cut short');
    return this.bytes.subarray(this.at, (this.at += length));
  }

  uleb(max: number, slug = 'profile'): number {
    return this.number(false, max, slug);
  }

  sleb(): number {
    return this.number(true, Number.MAX_SAFE_INTEGER, 'profile');
  }

  private number(signed: boolean, max: number, slug: string): number {
    let n = 0;
    let scale = 1;
    let byte = 0;
    const start = this.at;
    do {
      if (!this.more() || this.at - start > 7) refuse(slug, 'number');
      byte = this.bytes[this.at++];
      n += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    if (signed && byte & 64) n -= scale;
    const again: Bytes = [];
    (signed ? sleb : uleb)(again, n);
    if (n > max || again.length !== this.at - start) refuse(slug, 'number');
    return n;
  }
}

/** Expand one column; a run beyond `limit` values is refused before it is expanded. */
function expand<T>(column: Uint8Array | undefined, limit: number, read: (from: Cursor) => T): T[] {
  const from = new Cursor(column || new Uint8Array(0));
  const out: T[] = [];
  while (from.more()) {
    let count = from.sleb();
    if (out.length + Math.abs(count) > limit) refuse('too-many-ops');
    if (!count) refuse('profile', 'null in a column');
    if (count > 0) for (const value = read(from); count--; ) out.push(value);
    else for (; count++; ) out.push(read(from));
  }
  return out;
}

const ascending = (items: readonly string[]): boolean => items.every((item, i) => !i || items[i - 1] < item);
const small = (from: Cursor): number => from.uleb(1 << 20);
const readActor = (from: Cursor): string => (from.uleb(64) === 16 ? hex(from.take(16)) : refuse('profile', 'actor'));

function readKey(from: Cursor): string {
  const length = from.uleb(36, 'bad-mark');
  const key = length > from.bytes.length - from.at ? '' : text(from.take(length), 'bad-mark');
  return isKey(key) ? key : refuse('bad-mark', 'key');
}

function plainBody(chunk: Uint8Array, inflate?: Inflate): Uint8Array {
  if (chunk.length < 12 || chunk.length > CHUNK_BYTES_MAX) refuse('chunk-size');
  if (MAGIC.some((byte, i) => chunk[i] !== byte)) refuse('chunk-magic');
  const from = new Cursor(chunk, 9);
  const length = from.uleb(CHUNK_BYTES_MAX, 'chunk-type');
  if (from.at + length !== chunk.length) refuse('chunk-type', 'length');
  const body = from.take(length);
  if (chunk[8] === 1) return body;
  // What is inflated must still be a plain chunk of legal size: its header has up to 11 bytes.
  return chunk[8] === 2 && inflate ? inflate(body, CHUNK_BYTES_MAX - 11) : refuse('chunk-type');
}

/**
 * Read a chunk by all stateless rules of the profile.
 *
 * Without `inflate` a deflated chunk (type 2) is refused: the server answers with plain ones only. Throws
 * {@link Refusal} with the slug of the first rule that is broken, and never anything else.
 */
export function parseChange(chunk: Uint8Array, inflate?: Inflate): Change {
  const body = plainBody(chunk, inflate);
  const digest = digestOf(body);
  if (!equal(digest.subarray(0, 4), chunk.subarray(4, 8))) refuse('chunk-checksum');
  const change = readBody(body);
  if (!equal(bodyOf(change), body)) refuse('not-canonical');
  const plain = chunk[8] === 1 ? chunk : chunkOf(1, body, digest);
  return Object.assign(change, { hash: hex(digest), chunk: plain });
}

function readBody(body: Uint8Array): Draft {
  const from = new Cursor(body);
  const list = (count: number, read: () => string): string[] => {
    const out: string[] = [];
    while (count--) out.push(read());
    if (!ascending(out)) refuse('profile', 'order');
    return out;
  };
  const deps = list(from.uleb(DEPS_MAX), () => hex(from.take(32)));
  const actor = readActor(from);
  const seq = from.uleb(COUNTER_MAX);
  const startOp = from.uleb(COUNTER_MAX);
  const timeS = from.sleb();
  if (!seq || !startOp || timeS < 0 || timeS >= 2 ** 45) refuse('profile', 'seq, start_op or time');
  from.uleb(0); // no message
  const others = list(from.uleb(32), () => readActor(from));
  if (others.indexOf(actor) >= 0) refuse('profile', 'actors');
  const columns = readColumns(from);
  return { actor, seq, startOp, timeS, deps, ops: readOps(columns, [actor].concat(others), startOp) };
}

function readColumns(from: Cursor): (Uint8Array | undefined)[] {
  const layout: [number, number][] = [];
  let last = -1;
  for (let count = from.uleb(COLUMNS.length); count--; ) {
    const column = COLUMNS.indexOf(from.uleb(0xffff));
    const length = from.uleb(CHUNK_BYTES_MAX);
    if (column <= last || !length) refuse('profile', 'columns');
    layout.push([(last = column), length]);
  }
  const columns: (Uint8Array | undefined)[] = [];
  for (const [column, length] of layout) columns[column] = from.take(length);
  if (from.more()) refuse('profile', 'bytes left over');
  return columns;
}

function readOps(columns: readonly (Uint8Array | undefined)[], table: readonly string[], startOp: number): Op[] {
  const actions = expand(columns[2], OPS_MAX, small);
  const count = actions.length;
  const insert: Bytes = [];
  uleb(insert, count);
  if (!count || !columns[1] || !equal(columns[1], Uint8Array.from(insert))) refuse('profile', 'operations');
  const keys = expand(columns[0], count, readKey);
  const metas = expand(columns[3], count, small);
  const counts = expand(columns[5], count, small);
  if (keys.length !== count || metas.length !== count || counts.length !== count) refuse('profile', 'unequal columns');
  const values = readValues(keys, actions, metas, columns[4] || new Uint8Array(0));
  const preds = readPreds(counts, columns, table, startOp);
  return keys.map((key, i) => {
    if (values[i] === null && !counts[i]) refuse('profile', 'delete of nothing');
    return { key, value: values[i], preds: preds[i] };
  });
}

function readValues(keys: string[], actions: number[], metas: number[], bytes: Uint8Array): (string | null)[] {
  const from = new Cursor(bytes);
  const values = keys.map((key, i) => {
    const meta = metas[i];
    if (actions[i] === DELETE) return meta ? refuse('profile', 'delete with a value') : null;
    if (actions[i] !== PUT || meta % 16 !== STRING) refuse('profile', 'not a put of a string');
    if (meta >> 4 > bytes.length - from.at) refuse('bad-mark');
    const value = text(from.take(meta >> 4), 'bad-mark');
    return isMark(key, value) ? value : refuse('bad-mark');
  });
  if (from.more()) refuse('profile', 'value bytes left over');
  return values;
}

function readPreds(counts: number[], columns: readonly (Uint8Array | undefined)[], table: readonly string[], startOp: number): OpId[][] {
  if (Math.max(...counts) > PREDS_MAX) refuse('profile', 'predecessors');
  const total = counts.reduce((sum, n) => sum + n, 0);
  const actors = expand(columns[6], total, small);
  const steps = expand(columns[7], total, (from) => from.sleb());
  if (actors.length !== total || steps.length !== total) refuse('profile', 'predecessors');
  if (table.some((_, i) => i > 0 && actors.indexOf(i) < 0)) refuse('profile', 'unused actor');
  let at = 0;
  let counter = 0;
  return counts.map((n, i) => {
    const named: OpId[] = [];
    while (n--) {
      counter += steps[at];
      const pred: OpId = [counter, table[actors[at++]]];
      if (!pred[1] || counter < 1 || counter >= startOp + i) refuse('profile', 'predecessor');
      if (named.length && compareIds(named[named.length - 1], pred) >= 0) refuse('profile', 'order of predecessors');
      named.push(pred);
    }
    return named;
  });
}

/** Automerge's order of operation ids: by counter, then by actor. */
export const compareIds = (a: OpId, b: OpId): number => a[0] - b[0] || (a[1] < b[1] ? -1 : a[1] > b[1] ? 1 : 0);

/** The actor of one app session: its nonce (8 bytes), bound to the device so that nobody can take another's. */
export const actorOf = (device: Uint8Array, nonce: Uint8Array): string =>
  hex(nonce) + hex(sha256(concat([utf8('actor1'), device, nonce])).subarray(0, 8));
