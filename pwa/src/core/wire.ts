/**
 * The lazy half of the device: everything that signs or sends. It owns no state; the log, the fold and the cache are the
 * {@link Core}'s, so a phone that never reaches the network never loads it.
 *
 * Invariants:
 *   1. A frame is in the log, durable, before it is sent; its bytes never change; its number is taken inside the log's
 *      transaction, so two tabs never use one number.
 *   2. Receipts, what was pulled, cursor and nonce are appended in one transaction: a kill between any two awaits leaves
 *      either all of an answer or none of it, and none means that the same frames go again.
 *   3. Only bytes signed by the server of our enrolment, for this very request, change what the screens show as sent.
 */
import { Refusal, concat, hex, u32, unhex } from './bytes';
import { actorOf, parseChange } from './change';
import { identityOf } from './device';
import type { Core, Names, Outcome } from './device';
import { Answer, Effects, Signed, callPart, effectsOf, enrolPart, envelope, openAnswer, readAnswer, readEnrolled, syncBody } from './exchange';
import type { Fold } from './fold';
import { Entry, Ledger, Outstanding, frameHash, shortNumber } from './ledger';
import {
  Ask, CHANGES_MAX, FRAME_BYTES_MAX, FramedChange, HAVE_BYTES_MAX, SIGNATURE_BYTES, deflate, isBundle, nonceOf, readBundle, signedPart, writeBundle,
} from './frame';
import { DeviceKey, deviceId, newKey, sign, verify } from './keys';
import { Value, unpack } from './msgpack';
import { cells, readRecord, readTable } from './pages';
import { Problem, Reply, post } from './uploader';
import type { Identity } from '../api';

const FRAMES_MAX = 32;
const BODY_BYTES_MAX = 262144;
const ROUNDS_MAX = 64; // of one attempt; a backlog of 2,000 frames
const STALE_MAX = 2; // rounds without the payload we asked for
const FRAME_ROOM = 512; // header, ask and signature around the changes
const BUNDLE_BYTES_MAX = 1000000;
const FILE_PAGES_MAX = 65536;

/** What the next ask must fetch again: `repull` drops the cursor, `rebuild` also offers what we hold. */
type Mode = 'repull' | 'rebuild' | null;

const dateOf = (register: string): string => register.split('/')[1];
const newestFirst = (a: string, b: string): number => (a < b ? 1 : a > b ? -1 : 0);
const newest = (frame: Outstanding): string => frame.entries.reduce((top, entry) => (entry && dateOf(entry.register) > top ? dateOf(entry.register) : top), '');

function keyOf(core: Core): DeviceKey {
  const key = core.store.cache.get('key') as DeviceKey | undefined;
  if (!key) throw new Refusal('unknown-device', 'this browser has lost its key');
  return key;
}

/** Every entry of this module is called after `complete`. */
const ledgerOf = ({ fold }: Core): Ledger => fold.ledger as unknown as Ledger;

// ---- frames

/** Own changes that must go (again), newest school day first. */
function toFrame(core: Core): Entry[] {
  const { store } = core;
  const ledger = ledgerOf(core);
  const entries = new Map(ledger.unframed);
  for (const name of (store.cache.get('want') as string[] | undefined) || []) {
    const entry = ledger.entry(name);
    if (entry && (entry.own || isOurs(core, entry))) entries.set(name, entry); // others' changes are for their own devices to send
  }
  return Array.from(entries.values()).sort((a, b) => newestFirst(dateOf(a.register), dateOf(b.register)));
}

/** Whether a change that was pulled is this device's own all the same, from before its log was restored. */
function isOurs({ fold }: Core, { chunk }: Entry): boolean {
  const { actor } = parseChange(chunk);
  return !!fold.enrolment && actor === actorOf(fold.enrolment.device, unhex(actor.slice(0, 16)));
}

/** Frames that still need a receipt and can be sent by this device, newest school day first. */
function sendable(core: Core): Outstanding[] {
  const { enrolment } = core.fold;
  const ledger = ledgerOf(core);
  const device = enrolment ? hex(enrolment.device) : '';
  return Array.from(ledger.outstanding.values())
    .filter((frame) => frame.device === device && frame.entries.length && !ledger.quarantined.has(frame.number))
    .sort((a, b) => newestFirst(newest(a), newest(b)) || a.number - b.number);
}

/** As many of `entries` as fit into one frame; they are taken off the list. */
function fill(entries: Entry[], room: number): { changes: FramedChange[]; hashes: Uint8Array[] } {
  const changes: FramedChange[] = [];
  const hashes: Uint8Array[] = [];
  while (entries.length && changes.length < CHANGES_MAX) {
    const { register, chunk, hash } = entries[0];
    const packed = deflate(chunk, hash);
    room -= packed.length + register.length + 8;
    if (room < 0 && changes.length) break;
    changes.push({ register, delegation: null, chunk: packed });
    hashes.push(unhex(hash.slice(0, 16)));
    entries.shift();
  }
  return { changes, hashes };
}

/** Sign a frame and append it to the log; false when another tab took the number meanwhile. */
async function appendFrame(core: Core, entries: Entry[], ask: Ask | null): Promise<boolean> {
  const { fold, ports, store } = core;
  const { env, school, device } = fold.enrolment!;
  const ledger = ledgerOf(core);
  const number = ledger.lastNumber + 1;
  const room = FRAME_BYTES_MAX - FRAME_ROOM - (ask && ask.have ? ask.have.length : 0);
  const { changes, hashes } = ask && ask.have ? { changes: [], hashes: [] } : fill(entries, room);
  const clock = { wallMs: ports.wallMs(), monoMs: core.monoMs(), session: core.session, beacon: core.beacon };
  const signed = signedPart({ env, school, device, number, prev: ledger.lastFrameHash, clock, changes, ask });
  const frame = concat([signed, await sign(keyOf(core), signed)]);
  return core.write(() => {
    if (ledger.lastNumber + 1 !== number) return null;
    const sent = hashes.map(hex);
    const want = ((store.cache.get('want') as string[] | undefined) || []).filter((name) => sent.indexOf(name) < 0);
    return { rows: [core.row('frame', null, [number, hashes, frame])], cache: { want } };
  });
}

/** Seal and frame all pending work, without an ask. */
export async function frameAll(core: Core): Promise<void> {
  await core.seal();
  if (!core.fold.enrolment) return;
  for (let entries = toFrame(core); entries.length; entries = toFrame(core)) await appendFrame(core, entries, null);
}

// ---- one conversation

interface Talk {
  readonly core: Core;
  /** Frames a request may carry now; halved by 413 and time-outs. */
  limit: number;
  pull: boolean;
  /** Number of the frame that asks, made in this conversation and not answered yet. */
  asked: number;
  stale: number;
  confirm: boolean;
}

const limits = new WeakMap<Core, number>();

/** Send what is pending and pull, until both sides have nothing more to say. */
export async function converse(core: Core): Promise<Outcome> {
  const talk: Talk = { core, limit: limits.get(core) || FRAMES_MAX, pull: true, asked: 0, stale: 0, confirm: false };
  let failed: Problem | null = null;
  let ok = true;
  for (let rounds = 0; rounds < ROUNDS_MAX; rounds++) {
    const request = await nextRequest(talk);
    if (!request) break;
    const body = syncBody(request.map((frame) => frame.bytes));
    const reply = await post(core.ports, '/v1/sync', body);
    const trouble = await take(talk, request, body, reply);
    if (!trouble) continue;
    if (await split(talk, request, reply)) continue;
    failed = reply.problem;
    ok = false;
    break;
  }
  limits.set(core, talk.limit);
  return { ok, confirm: talk.confirm, retryAfterMs: failed ? failed.retryAfterMs : 0 };
}

/** The frames of the next request, the asking one last; null when there is nothing to send and nothing to ask. */
async function nextRequest(talk: Talk): Promise<Outstanding[] | null> {
  const { core } = talk;
  await core.seal();
  for (;;) {
    const waiting = sendable(core);
    const batch = fitting(waiting, talk.limit);
    if (batch.length < waiting.length || (batch.length && batch.length === talk.limit)) return batch;
    const entries = toFrame(core);
    if (!entries.length) {
      const asking = talk.pull ? askingLast(talk, batch) : batch;
      if (asking) return asking.length ? asking : null;
    }
    // What fits goes with the ask into one frame; a backlog first becomes frames without one.
    const last = entries.reduce((sum, { chunk, register }) => sum + chunk.length + register.length + 8, 0) <= FRAME_BYTES_MAX - FRAME_ROOM;
    const rebuild = modeOf(core) === 'rebuild';
    const asks = last && (!rebuild || !entries.length) ? ask(core, entries) : null;
    const wrote = await appendFrame(core, entries, asks);
    if (wrote && asks) talk.asked = ledgerOf(core).lastNumber;
  }
}

function fitting(frames: readonly Outstanding[], limit: number): Outstanding[] {
  const batch: Outstanding[] = [];
  let bytes = FRAME_BYTES_MAX; // leave room for one more frame, the asking one
  for (const frame of frames) {
    bytes += frame.bytes.length + 8;
    if (batch.length >= limit || (bytes > BODY_BYTES_MAX && batch.length)) break;
    batch.push(frame);
  }
  return batch;
}

/**
 * The batch with a frame that asks at its end, if the log has one without a receipt: the one made in this conversation, or
 * one that asks under the current nonce, so that after a lost answer the same bytes go again. Null: a new frame must ask.
 */
function askingLast({ core, asked }: Talk, batch: readonly Outstanding[]): Outstanding[] | null {
  const { fold, store } = core;
  const nonce = (store.cache.get('nonce') as Uint8Array | undefined) || null;
  const asksNow = (frame: Outstanding): boolean => {
    if (frame.number === asked) return true;
    const under = nonceOf(frame.bytes);
    return !modeOf(core) && under !== undefined && (under ? hex(under) : null) === (nonce ? hex(nonce) : null);
  };
  const device = hex(fold.enrolment!.device);
  const ledger = ledgerOf(core);
  let found: Outstanding | null = null;
  ledger.outstanding.forEach((frame) => {
    if (frame.number === ledger.lastNumber && frame.device === device && !ledger.quarantined.has(frame.number) && asksNow(frame)) found = frame;
  });
  return found && batch.filter((frame) => frame !== found).concat(found);
}

const modeOf = ({ store }: Core): Mode => (store.cache.get('mode') as Mode | undefined) || null;

function ask(core: Core, carried: readonly Entry[]): Ask {
  const { fold, store } = core;
  const mode = modeOf(core);
  const carrying = new Set(carried.map(({ register }) => register));
  let unsent = 0;
  fold.registers.forEach((register, name) => (unsent += +(register.step === 'saved' && !carrying.has(name))));
  const hashes = mode === 'rebuild' ? ledgerOf(core).held().reverse().slice(0, HAVE_BYTES_MAX / 8) : null; // the newest, if not all fit
  return {
    nonce: (store.cache.get('nonce') as Uint8Array | undefined) || null,
    cursor: mode ? null : (store.cache.get('cursor') as Uint8Array | undefined) || null,
    have: hashes && unhex(hashes.join('')),
    app: core.app.slice(0, 16),
    unsent,
    done: fold.done,
  };
}

/** Take a reply into the log; true when it was not an answer. */
async function take(talk: Talk, request: readonly Outstanding[], body: Uint8Array, reply: Reply): Promise<boolean> {
  const { core } = talk;
  const { fold } = core;
  let signed: Signed | null = null;
  let answer: Answer | null = null;
  let effects: Effects | null = null;
  let slug = reply.nothing || (reply.problem ? reply.problem.slug : 'ok');
  if (reply.body) {
    try {
      signed = await verified(fold, reply.body);
      answer = readAnswer(signed, body);
      if (answer.receipts.length !== request.length) throw new Refusal('no-answer', 'receipts');
      if (signed.payload) effects = effectsOf(signed.payload, fold, ledgerOf(core), core.ports.wallMs());
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      slug = 'no-answer';
      answer = null;
    }
  }
  const link = core.ports.link();
  const started = Math.max(0, core.monoMs() - (core.ports.monoMs() - reply.startedMonoMs));
  const attempt: Value = [started, reply.durationMs, body.length, reply.bytesDown, slug, reply.firstByteMs, link];
  if (!answer || !signed) {
    await core.write(() => {
      const revoked = slug === 'revoked' && !fold.notices.has(slug);
      return { rows: [core.row('attempt', null, attempt)].concat(revoked ? [core.row('notice', null, [slug, ''])] : []) };
    });
    return true;
  }
  await takeAnswer(talk, request, { signed, answer, effects, attempt });
  return false;
}

async function verified(fold: Fold, body: Uint8Array): Promise<Signed> {
  const signed = openAnswer(body);
  if (!(await verify(fold.enrolment!.serverKey, signed.signed, signed.signature))) throw new Refusal('no-answer', 'signature');
  return signed;
}

interface Taken {
  readonly signed: Signed;
  readonly answer: Answer;
  readonly effects: Effects | null;
  readonly attempt: Value;
}

/** All that follows from one answer, in one transaction. */
async function takeAnswer(talk: Talk, request: readonly Outstanding[], { signed, answer, effects, attempt }: Taken): Promise<void> {
  const { core } = talk;
  const { fold, store } = core;
  const ledger = ledgerOf(core);
  const arrived = core.monoMs();
  await core.write(() => {
    // Copies: a stored view would drag its whole buffer, the answer, into the database.
    const cache: Record<string, unknown> = { nonce: answer.nonce.slice() };
    const hashes = request.map((frame) => unhex(frame.hash));
    const rows = [
      core.row('receipt', null, [signed.signed, signed.signature, hashes]),
      core.row('clock', null, [arrived, answer.serverMs]),
      core.row('attempt', null, attempt as Value[]),
    ];
    core.beacon = [answer.serverMs, arrived];
    let mode = modeOf(core);
    if (effects) {
      rows.push(...effects.rows);
      Object.assign(cache, effects.cache, { cursor: effects.cursor.slice() });
      const want = (store.cache.get('want') as string[] | undefined) || [];
      if (effects.want.length) cache.want = want.concat(effects.want);
      mode = effects.level === 'repull' || effects.level === 'rebuild' ? effects.level : null;
    }
    if (answer.epoch > ledger.epoch) mode = 'rebuild'; // the log was restored: offer again what a backup may lack
    if (answer.lastNumber > ledger.lastNumber) {
      // Frames of ours that we do not know: this phone was restored or copied. New numbers, new actor, fetch all.
      rows.push(core.row('notice', null, ['restored-copy', String(answer.lastNumber)]), core.begin());
      mode = 'rebuild';
    }
    cache.mode = mode;
    talk.confirm = talk.confirm || answer.receipts.some((entry) => Array.isArray(entry) && entry.indexOf(0) >= 0);
    talk.pull = mode !== null || (effects ? effects.more : talk.pull && ++talk.stale <= STALE_MAX);
    return { rows, cache };
  });
  talk.limit = Math.min(FRAMES_MAX, talk.limit * 2);
  talk.asked = 0;
  if (effects && !talk.pull && fold.directive) await carriedOut(talk);
}

/** A directive is done when nothing is left to fetch or send; the next ask says so. */
async function carriedOut(talk: Talk): Promise<void> {
  const { core } = talk;
  if (toFrame(core).length || sendable(core).length) {
    talk.pull = true; // the round that sends them comes back here
    return;
  }
  await core.write(() => {
    const { directive } = core.fold;
    return directive && { rows: [core.row('directive', null, [directive.id, directive.level, directive.reason, 'done'])] };
  });
  talk.pull = true;
}

/**
 * After a reply that was no answer: whether to go on with a smaller request at once.
 *
 * A time-out only shrinks the next attempt. A single frame that the server cannot read is set aside, so that it does not
 * hold up the others; it is tried again in the next app session, and every export still holds it.
 */
async function split(talk: Talk, request: readonly Outstanding[], { nothing, problem }: Reply): Promise<boolean> {
  const { core } = talk;
  const halved = Math.max(1, Math.floor(request.length / 2));
  if (nothing === 'timeout') talk.limit = halved;
  if (!problem || (problem.status !== 413 && problem.status !== 400) || problem.retry === 'upgrade') return false;
  talk.limit = halved;
  if (request.length > 1) return true;
  const { number } = request[0];
  await core.write(() => ({ rows: [core.row('notice', null, ['quarantine', number])] }));
  return request[0].entries.length > 0; // a greeting that is refused: something else is wrong, stop
}

// ---- enrolment and calls

function problemOf(slug: string, retry = 'same', safe = true): Error {
  return Object.assign(new Error(slug), { slug, retry, safe });
}

const thrown = ({ problem, nothing }: Reply): Error =>
  problem ? problemOf(problem.slug, problem.retry, problem.safe) : problemOf(nothing || 'no-answer');

/** Become a device of `school`. What an earlier key still has to say is sealed and framed with that key first. */
export async function enrol(core: Core, school: string, code: string, label: string): Promise<Identity> {
  if (core.fold.enrolment && core.store.cache.get('key')) await frameAll(core);
  const key = await newKey();
  const letters = code.toUpperCase().replace(/[^A-Z]/g, '');
  const part = enrolPart(school, letters, key.publicKey, label.slice(0, 40), core.app.slice(0, 16));
  const body = envelope('enrol1', part, await sign(key, part));
  const reply = await post(core.ports, '/v1/enrol', body);
  if (!reply.body) throw thrown(reply);
  try {
    const signed = openAnswer(reply.body);
    const enrolled = readEnrolled(signed, body);
    if (!(await verify(enrolled.serverKey, signed.signed, signed.signature))) throw new Refusal('no-answer', 'signature');
    if (hex(enrolled.device) !== hex(deviceId(key.publicKey))) throw new Refusal('no-answer', 'device');
    const effects = effectsOf(signed.payload!, core.fold, ledgerOf(core), core.ports.wallMs());
    const names: Names = { schoolName: enrolled.schoolName, userName: enrolled.userName, shortNumber: shortNumber(key.publicKey) };
    const { env, device, userId, role, serverKey, epoch, nonce, serverMs } = enrolled;
    await core.write(() => {
      const begun = core.begin();
      core.beacon = [serverMs, 0];
      return {
        rows: [core.row('enrol', null, [env, enrolled.school, device, userId, role, serverKey, epoch]), begun, ...effects.rows],
        cache: { ...effects.cache, key, names, nonce: nonce.slice(), cursor: effects.cursor.slice(), mode: null, want: [] },
      };
    });
    return identityOf(core.fold.enrolment!, names);
  } catch (cause) {
    if (cause instanceof Refusal) throw problemOf(cause.slug);
    throw cause;
  }
}

/** A champion's call; resolves to the result, unpacked. */
export const call = async (core: Core, command: string, args: readonly Value[]): Promise<Value> => (await ring(core, '/v1/call', command, args)).result;

async function ring(core: Core, path: string, command: string, args: readonly Value[]): Promise<{ result: Value; receipts: readonly Value[] }> {
  const { fold, store, ports } = core;
  if (!fold.enrolment) throw problemOf('unknown-device', 'rekey');
  const { env, school, device } = fold.enrolment;
  let nonce = (store.cache.get('nonce') as Uint8Array | undefined) || new Uint8Array(8);
  for (let tries = 0; ; tries++) {
    const part = callPart(env, school, device, nonce, ports.wallMs(), command, args);
    const body = envelope('call1', part, await sign(keyOf(core), part));
    const reply = await post(ports, path, body);
    const { problem } = reply;
    if (problem && problem.slug === 'stale-nonce' && problem.nonce && /^[0-9a-f]{16}$/.test(problem.nonce) && tries < 2) {
      nonce = unhex(problem.nonce);
      continue;
    }
    if (!reply.body) throw thrown(reply);
    try {
      const signed = await verified(fold, reply.body);
      const answer = readAnswer(signed, body);
      await core.write(() => ({ rows: [], cache: { nonce: answer.nonce.slice() } }));
      return { result: signed.payload ? unpack(signed.payload) : null, receipts: answer.receipts };
    } catch (cause) {
      if (cause instanceof Refusal) throw problemOf(cause.slug);
      throw cause;
    }
  }
}

// ---- files

/** Every frame without a receipt, pending work sealed and framed first. Frames of an earlier key of this phone too. */
export async function exportBundle(core: Core): Promise<Uint8Array> {
  await frameAll(core);
  return writeBundle(
    Array.from(ledgerOf(core).outstanding.values())
      .filter((frame) => frame.entries.length)
      .map((frame) => frame.bytes),
  );
}

/**
 * Hand in another phone's work: a bundle, or the frames of its log file that have no receipt there. Several calls when the
 * file is large; the results are added up.
 */
export async function importFile(core: Core, file: Uint8Array): Promise<Value> {
  const frames = isBundle(file) ? null : framesOfLog(file);
  if (!frames && file.length <= BUNDLE_BYTES_MAX) return (await ring(core, '/v1/bundles', 'bundle', [file])).result;
  const all = frames ? { frames, truncated: false } : readBundle(file);
  let total: Value[] | null = null;
  for (let at = 0; at < all.frames.length || !total; ) {
    const part: Uint8Array[] = [];
    for (let bytes = 0; at < all.frames.length && bytes + all.frames[at].length < BUNDLE_BYTES_MAX; at++) {
      part.push(all.frames[at]);
      bytes += all.frames[at].length + 4;
    }
    total = added(total, (await ring(core, '/v1/bundles', 'bundle', [writeBundle(part)])).result as Value[]);
  }
  total[5] = total[5] || all.truncated;
  return total;
}

/** Sum of two bundle results: numbers are added, truth is kept, lists are joined. */
const added = (sum: Value[] | null, next: Value[]): Value[] =>
  sum
    ? sum.map((a, i) => {
        const b = next[i];
        return typeof a === 'number' ? a + (b as number) : typeof a === 'boolean' ? a || (b as boolean) : (a as Value[]).concat(b as Value[]);
      })
    : next.slice();

/** Frames of another phone's log. The file is hostile until proved otherwise: the readers are bounded, nothing is trusted. */
export function framesOfLog(file: Uint8Array): Uint8Array[] {
  const frames = new Map<string, Uint8Array>();
  const answered = new Set<string>();
  for (const { kind, body } of rowsOfFile(file)) {
    if (kind !== 'frame' && kind !== 'receipt') continue;
    try {
      const [, , last] = unpack(body) as Value[];
      if (kind === 'receipt') for (const hash of last as Uint8Array[]) answered.add(hex(hash));
      else {
        const frame = last as Uint8Array;
        if (frame.length > SIGNATURE_BYTES && frame.length <= FRAME_BYTES_MAX) frames.set(hex(frameHash(frame)), frame);
      }
    } catch (cause) {
      if (!(cause instanceof Refusal || cause instanceof TypeError)) throw cause; // one bad row hides no other
    }
  }
  const all = Array.from(frames);
  const open = all.filter(([hash]) => !answered.has(hash));
  return (open.length ? open : all).map(([, frame]) => frame); // nothing open: the server's "duplicate" is the proof
}

/** Rows of the table `log` in a SQLite file of any page size. */
export function rowsOfFile(file: Uint8Array): ReturnType<typeof readTable> {
  const magic = Array.from('SQLite format 3\0').every((char, i) => file[i] === char.charCodeAt(0));
  if (!magic) throw new Refusal('not-an-export', 'neither a bundle nor a log');
  const declared = (file[16] << 8) | file[17];
  const size = declared === 1 ? 65536 : declared;
  if (size < 512 || size & (size - 1) || u32(file, 56) !== 1) throw new Refusal('not-an-export', 'header');
  const count = Math.min(Math.floor(file.length / size), FILE_PAGES_MAX);
  const page = (no: number): Uint8Array | undefined => (no >= 1 && no <= count ? file.subarray((no - 1) * size, no * size) : undefined);
  const usable = size - file[20];
  for (const [, payload] of cells(page, usable, 1)) {
    const [type, name, , root] = readRecord(payload);
    if (type === 'table' && name === 'log' && typeof root === 'number') return readTable(page, usable, root);
  }
  throw new Refusal('not-an-export', 'no log in it');
}
