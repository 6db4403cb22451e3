/**
 * One conversation with the server, the device's role: values to bytes, bytes to values (docs/protocol.md sections 4, 6, 7,
 * 8). Pure: signatures are checked by the caller, who gets what was signed.
 */
import { Refusal, hex } from './bytes';
import { equal } from './bytes-more';
import { parseChange } from './change';
import { Fold, row } from './fold';
import { Ledger, shortHash } from './ledger';
import { Value, pack, unpack } from './msgpack';
import type { NewRow } from './pages';
import { isRegister } from './register';
import { sha256 } from './sha256';

type Kind = 'string' | 'number' | 'boolean' | 'list' | 'bin' | 'any' | number;
type Kinds = readonly (Kind | readonly (Kind | null)[])[];

const fits = (item: Value, kind: Kind | null): boolean =>
  kind === null
    ? item === null
    : typeof kind === 'number'
      ? item instanceof Uint8Array && item.length === kind
      : kind === 'list'
        ? Array.isArray(item)
        : kind === 'bin'
          ? item instanceof Uint8Array
          : kind === 'any' || typeof item === kind;

/** `value` as an array of exactly these kinds. A kind may be a bin's length; several kinds mean any of them. */
export function shape(value: Value, kinds: Kinds): Value[] {
  if (!Array.isArray(value) || value.length !== kinds.length) throw new Refusal('no-answer', 'shape');
  value.forEach((item: Value, i) => {
    const kind = kinds[i];
    if (!(typeof kind === 'object' ? kind : [kind]).some((one) => fits(item, one))) throw new Refusal('no-answer', 'element ' + i);
  });
  return value as Value[];
}

export const digest = (bytes: Uint8Array): Uint8Array => sha256(bytes).subarray(0, 16);

/** Read one value in its one spelling: the shortest form of every part. */
export function unpackShortest(bytes: Uint8Array): Value {
  const value = unpack(bytes);
  if (!equal(pack(value), bytes)) throw new Refusal('bad-frame', 'not the shortest form');
  return value;
}

export interface Signed {
  readonly signed: Uint8Array;
  readonly signature: Uint8Array;
  readonly payload: Uint8Array | null;
}

/** Take an answer's envelope apart. Throws {@link Refusal} when the bytes are not one. */
export function openAnswer(body: Uint8Array): Signed {
  const [word, signed, signature, payload] = shape(unpackShortest(body), ['string', 'bin', 64, ['bin', null]]);
  if (word !== 'ans1') throw new Refusal('no-answer', 'word');
  return { signed, signature, payload } as unknown as Signed;
}

export interface Answer {
  readonly serverMs: number;
  readonly epoch: number;
  readonly nonce: Uint8Array;
  readonly lastNumber: number;
  readonly receipts: readonly Value[];
}

/** Read what the server signed, and check that it answers `request` and covers `payload`. */
export function readAnswer({ signed, payload }: Signed, request: Uint8Array): Answer {
  const [tag, asked, serverMs, epoch, nonce, lastNumber, receipts, , covered] = shape(unpack(signed), [
    'string', 16, 'number', 'number', 8, 'number', 'list', [16, null], [16, null],
  ]);
  if (tag !== 'hudur1a') throw new Refusal('no-answer', 'tag');
  belongs(asked, request, covered, payload);
  for (const entry of receipts as Value[]) if (typeof entry !== 'string') readVerdicts(entry);
  return { serverMs, epoch, nonce, lastNumber, receipts } as Answer;
}

function readVerdicts(entry: Value): void {
  if (!Array.isArray(entry)) throw new Refusal('no-answer', 'receipts');
  for (const verdict of entry) {
    const kind = (typeof verdict === 'number' ? verdict : shape(verdict, ['number', 'string'])[0]) as number;
    if (kind < 0 || kind > 3) throw new Refusal('no-answer', 'verdict');
  }
}

function belongs(asked: Value, request: Uint8Array, covered: Value, payload: Uint8Array | null): void {
  if (!equal(asked as Uint8Array, digest(request))) throw new Refusal('no-answer', 'answers another request');
  if (payload ? !covered || !equal(covered as Uint8Array, digest(payload)) : covered) throw new Refusal('no-answer', 'payload');
}

export interface Enrolled {
  readonly env: string;
  readonly school: string;
  readonly schoolName: string;
  readonly device: Uint8Array;
  readonly userId: string;
  readonly userName: string;
  readonly role: string;
  readonly serverKey: Uint8Array;
  readonly serverMs: number;
  readonly epoch: number;
  readonly nonce: Uint8Array;
  readonly shortNumber: string;
}

/** Read the answer to an enrolment; the server's key is learnt here and must have signed it. */
export function readEnrolled({ signed, payload }: Signed, request: Uint8Array): Enrolled {
  const [tag, asked, env, school, schoolName, device, userId, userName, role, serverKey, serverMs, epoch, nonce, shortNumber, covered] = shape(
    unpack(signed),
    ['string', 16, 'string', 'string', 'string', 16, 'string', 'string', 'string', 65, 'number', 'number', 8, 'string', 16],
  );
  if (tag !== 'hudur1n' || !payload) throw new Refusal('no-answer', 'tag');
  belongs(asked, request, covered, payload);
  return { env, school, schoolName, device, userId, userName, role, serverKey, serverMs, epoch, nonce, shortNumber } as unknown as Enrolled;
}

/** What a pull payload asks the device to do; everything lasting is in `rows` and `cache`. */
export interface Effects {
  readonly rows: NewRow[];
  readonly cache: Record<string, unknown>;
  readonly cursor: Uint8Array;
  readonly more: boolean;
  /** Short hashes the server lacks. */
  readonly want: string[];
  /** The strongest level of the new directives. */
  level: string | null;
}

/**
 * The effects of a pull payload on a device whose log folds to `fold`. Unknown words are skipped: a later server may say
 * more than we understand. A change that breaks the rules is not taken, and a notice says so.
 */
export function effectsOf(payload: Uint8Array, fold: Fold, ledger: Ledger, atMs: number): Effects {
  const [cursor, more, items] = shape(unpack(payload), ['bin', 'boolean', 'list']);
  const effects: Effects = { rows: [], cache: {}, cursor: cursor as Uint8Array, more: more as boolean, want: [], level: null };
  const add = (kind: string, register: string | null, body: Value[]): void => {
    effects.rows.push(row(kind, register, atMs, body));
  };
  for (const item of items as Value[]) {
    const [word, ...rest] = shape([item], ['list'])[0] as Value[];
    const take = WORDS[word as string];
    if (take) take(shape(rest, take.kinds), effects, add, fold, ledger);
  }
  return effects;
}

type Add = (kind: string, register: string | null, body: Value[]) => void;
type Take = ((item: Value[], effects: Effects, add: Add, fold: Fold, ledger: Ledger) => void) & { kinds: Kinds };

const word = (kinds: Kinds, take: (item: Value[], effects: Effects, add: Add, fold: Fold, ledger: Ledger) => void): Take => Object.assign(take, { kinds });

const LEVELS = ['nudge', 'repull', 'rebuild'];

const WORDS: Record<string, Take | undefined> = {
  change: word(['string', 'string', 'bin'], ([register, user, chunk], _effects, add, _fold, ledger) => {
    try {
      if (!isRegister(register as string)) throw new Refusal('bad-register');
      const { hash } = parseChange(chunk as Uint8Array);
      if (!ledger.entry(shortHash(hash))) add('pulled', register as string, [user, chunk]);
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      add('notice', null, ['unreadable-change', cause.message]);
    }
  }),
  settled: word(['string', 'number', 'list'], ([register, revision, states], _effects, add) => {
    for (const state of states as Value[]) shape(state, [8, 'number', ['string', null]]);
    if (isRegister(register as string)) add('settled', register as string, [revision, states]);
  }),
  classes: word(['list'], ([classes], { cache }) => {
    for (const one of classes as Value[]) shape(one, ['string', 'string', 'string']);
    cache.classes = classes;
  }),
  roster: word(['string', 'number', 'list'], ([id, version, pupils], { cache }, add, _fold, ledger) => {
    for (const pupil of pupils as Value[]) shape(pupil, ['string', 'string']);
    cache['roster:' + id] = { version, pupils };
    if (ledger.rosterVersions.get(id as string) !== version) add('roster', null, [id, version, (pupils as Value[]).length]);
  }),
  calendar: word(['number', 'list', 'list', 'list'], ([version, offsets, closed, sessions], { cache }, add) => {
    for (const offset of offsets as Value[]) shape(offset, ['number', 'number']);
    for (const day of closed as Value[]) shape(day, ['string', 'string']);
    shape(sessions, (sessions as Value[]).map((): Kind => 'string'));
    if (!(offsets as Value[]).length) throw new Refusal('no-answer', 'calendar without offsets');
    cache.calendar = { version, offsets, closed, sessions };
    add('calendar', null, [version]);
  }),
  directive: word(['number', 'string', 'string', 'number'], ([id, level, reason], effects, add, fold, ledger) => {
    if (ledger.carriedOut.has(id as number) || fold.waiting.has(id as number)) return;
    // A rebuild does what a repull does, and both do what a nudge does.
    if (LEVELS.indexOf(level as string) > LEVELS.indexOf(effects.level || '')) effects.level = level as string;
    add('directive', null, [id, level, reason, 'delivered']);
  }),
  want: word(['bin'], ([hashes], { want }) => {
    const digits = hex(hashes as Uint8Array);
    for (let at = 0; at + 16 <= digits.length; at += 16) want.push(digits.slice(at, at + 16));
  }),
  notice: word(['string'], ([slug], _effects, add, fold) => {
    if (!fold.notices.has(slug as string)) add('notice', null, [slug, '']);
  }),
};

/** The body of `POST /v1/sync`. */
export const syncBody = (frames: readonly Uint8Array[]): Uint8Array => pack(['sync1', frames]);

/** `signed` of an enrolment and of a call, and their envelopes. */
export const enrolPart = (school: string, code: string, publicKey: Uint8Array, label: string, app: string): Uint8Array =>
  pack(['hudur1e', school, code, publicKey, label, app]);

export const callPart = (
  env: string, school: string, device: Uint8Array, nonce: Uint8Array, wallMs: number, command: string, args: readonly Value[],
): Uint8Array => pack(['hudur1c', env, school, device, nonce, wallMs, command, args]);

export const envelope = (name: string, signed: Uint8Array, signature: Uint8Array): Uint8Array => pack([name, signed, signature]);
