/**
 * One conversation with the server: send what is pending, pull, until both sides have nothing more to say.
 *
 * Invariants:
 *   1. Receipts, what was pulled, cursor and nonce are appended in one transaction: a kill between any two awaits leaves
 *      either all of an answer or none of it, and none means that the same frames go again.
 *   2. Only bytes signed by the server of our enrolment, for this very request, change what the screens show as sent. A
 *      problem is unsigned: it changes when and how much we send next, and nothing else.
 */
import { Refusal, hex } from './bytes';
import { unhex } from './bytes-more';
import { SEAL_IDLE_MS } from './device';
import type { Core } from './device';
import { Answer, Effects, Signed, effectsOf, openAnswer, readAnswer, syncBody } from './exchange';
import type { Fold } from './fold';
import { Ask, FRAME_BYTES_MAX, HAVE_BYTES_MAX, appOf, nonceOf } from './frame';
import { verify } from './keys';
import type { Entry, Outstanding } from './ledger';
import type { Value } from './msgpack';
import { FRAME_ROOM, appendFrame, isOurs, ledgerOf, sendable, toFrame } from './outbox';
import { Problem, Reply, post } from './uploader';

const FRAMES_MAX = 32;
const BODY_BYTES_MAX = 262144;
const ROUNDS_MAX = 64; // of one attempt; a backlog of 2,000 frames
/** Problems that lie in a frame itself. */
const UNREADABLE = ['bad-frame', 'frame-limits'];
const HAVE_HASHES_MAX = HAVE_BYTES_MAX / 8;
const STALE_MAX = 2; // rounds without the payload we asked for

/** What the next ask must fetch again: `repull` drops the cursor, `rebuild` also offers what we hold. */
type Mode = 'repull' | 'rebuild' | null;

/** How a conversation with the server ended. */
export interface Outcome {
  ok: boolean;
  /** Something became durable on the server: its confirmation will follow. */
  received: boolean;
  retryAfterMs: number;
}

interface Talk {
  readonly core: Core;
  /** Frames a request may carry now; halved by 413 and time-outs. */
  limit: number;
  pull: boolean;
  /** Number of the frame that asks, made in this conversation and not answered yet. */
  asked: number;
  stale: number;
  /** Parts of a rebuild's offer that were answered: what we hold does not always fit into one frame. */
  offered: number;
  received: boolean;
}

const limits = new WeakMap<Core, number>();

/** Send what is pending and pull, until both sides have nothing more to say. */
export async function converse(core: Core): Promise<Outcome> {
  const talk: Talk = { core, limit: limits.get(core) || FRAMES_MAX, pull: true, asked: 0, stale: 0, offered: 0, received: false };
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
  return { ok, received: talk.received, retryAfterMs: failed ? failed.retryAfterMs : 0 };
}

/** The frames of the next request, the asking one last; null when there is nothing to send and nothing to ask. */
async function nextRequest(talk: Talk): Promise<Outstanding[] | null> {
  const { core } = talk;
  // The teacher may still be tapping: a register is sealed here only when it has been left alone.
  await core.seal(undefined, SEAL_IDLE_MS);
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
    const asks = last && (!rebuild || !entries.length) ? ask(talk, entries) : null;
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

/** One part of what we hold. All of our own is offered; others' work, which they hold themselves, as far as there is room. */
function offer(core: Core, part: number): string[] {
  const { own, others } = ledgerOf(core).held();
  return own.concat(others).slice(part * HAVE_HASHES_MAX, (part + 1) * HAVE_HASHES_MAX);
}

function ask({ core, offered }: Talk, carried: readonly Entry[]): Ask {
  const { fold, store } = core;
  const mode = modeOf(core);
  const carrying = new Set(carried.map(({ register }) => register));
  let unsent = 0;
  fold.registers.forEach((register, name) => (unsent += +(register.step === 'saved' && !carrying.has(name))));
  const hashes = mode === 'rebuild' ? offer(core, offered) : null;
  return {
    nonce: (store.cache.get('nonce') as Uint8Array | undefined) || null,
    // Only the first part of an offer also fetches from the beginning.
    cursor: mode && !offered ? null : (store.cache.get('cursor') as Uint8Array | undefined) || null,
    have: hashes && unhex(hashes.join('')),
    app: core.told ? null : core.release,
    unsent,
    done: ledgerOf(core).done,
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

export async function verified(fold: Fold, body: Uint8Array): Promise<Signed> {
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
    core.told = core.told || request.some((frame) => appOf(frame.bytes) === core.release);
    let mode = modeOf(core);
    if (effects) {
      // What is still unsealed was tapped without sight of what comes now. It is sealed first, so that two people who
      // marked a pupil differently are told of it, instead of the later sealing winning in silence.
      const theirs = new Set(effects.rows.filter((row) => row.kind === 'pulled').map((row) => row.register as string));
      for (const register of theirs) rows.push(...core.sealRows(register));
      rows.push(...effects.rows);
      Object.assign(cache, effects.cache, { cursor: effects.cursor.slice() });
      const want = (store.cache.get('want') as string[] | undefined) || [];
      if (effects.want.length) cache.want = want.concat(effects.want.filter((name) => isOurs(core, name)));
      const asked = mode;
      mode = effects.level === 'repull' || effects.level === 'rebuild' ? effects.level : null;
      if (asked === 'rebuild' && ++talk.offered * HAVE_HASHES_MAX < ledger.held().own.length) mode = asked;
      else talk.offered = 0;
    }
    if (answer.epoch > ledger.epoch) {
      mode = 'rebuild'; // the log was restored: offer again what a backup may lack
      talk.offered = 0;
    }
    if (answer.lastNumber > ledger.lastNumber) {
      // Frames of ours that we do not know: this phone was restored or copied. New numbers, new actor, fetch all.
      rows.push(core.row('notice', null, ['restored-copy', String(answer.lastNumber)]), core.begin());
      mode = 'rebuild';
      talk.offered = 0;
    }
    cache.mode = mode;
    talk.received = talk.received || answer.receipts.some((entry) => Array.isArray(entry) && entry.indexOf(0) >= 0);
    talk.pull = mode !== null || (effects ? effects.more : talk.pull && ++talk.stale <= STALE_MAX);
    return { rows, cache };
  });
  talk.limit = Math.min(FRAMES_MAX, talk.limit * 2);
  talk.asked = 0;
  if (effects && !talk.pull && fold.waiting.size) await carriedOut(talk);
}

/** The directives that wait are done when nothing is left to fetch or send; the next ask says so. */
async function carriedOut(talk: Talk): Promise<void> {
  const { core } = talk;
  if (toFrame(core).length || sendable(core).length) {
    talk.pull = true; // the round that sends them comes back here
    return;
  }
  await core.write(() => {
    const rows = Array.from(core.fold.waiting.values()).map(({ id, level, reason }) => core.row('directive', null, [id, level, reason, 'done']));
    return { rows };
  });
  talk.pull = true;
}

/**
 * After a reply that was no answer: whether to go on with a smaller request at once.
 *
 * A time-out only shrinks the next attempt. A single frame that the server cannot read is set aside, so that it does not
 * hold up the others; it is tried again in the next app session, and every export still holds it. A frame that only came
 * too slowly, or was refused for its request's size, is never set aside.
 */
async function split(talk: Talk, request: readonly Outstanding[], { nothing, problem }: Reply): Promise<boolean> {
  const { core } = talk;
  const halved = Math.max(1, Math.floor(request.length / 2));
  if (nothing === 'timeout') talk.limit = halved;
  if (!problem || problem.retry === 'upgrade' || [400, 408, 413].indexOf(problem.status) < 0) return false;
  talk.limit = halved;
  if (request.length > 1) return true;
  if (UNREADABLE.indexOf(problem.slug) < 0) return false;
  const { number } = request[0];
  await core.write(() => ({ rows: [core.row('notice', null, ['quarantine', number])] }));
  return request[0].entries.length > 0; // a greeting that is refused: something else is wrong, stop
}
