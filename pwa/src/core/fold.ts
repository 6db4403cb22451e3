/**
 * The log, folded: every state the screens show and every decision the exchange takes is a function of the rows.
 *
 * Invariants:
 *   1. `apply` is called once for each row, in the log's order; rows are never taken back.
 *   2. A register is shown as *sent* only when each of its changes has a verdict in a receipt, *confirmed* only when each is
 *      settled so (docs/protocol.md section 10). A change that is framed again has lost its verdict.
 *   3. Chunks are parsed on demand: a start reads thousands of rows, a screen shows one register.
 */
import { Refusal, concat, equal, hex, utf8 } from './bytes';
import { Change, parseChange } from './change';
import { History, merge } from './history';
import { Value, pack, unpack } from './msgpack';
import { NewRow } from './pages';
import { sha256 } from './sha256';
import type { RegisterState, RegisterStep } from '../api';

/** One change of the log. `verdict` null: no receipt yet; 0 durable, 1 duplicate, 2 held, 3 refused. */
export interface Entry {
  readonly register: string;
  readonly own: boolean;
  readonly hash: string;
  readonly chunk: Uint8Array;
  verdict: number | null;
  slug: string | null;
  /** 0 not settled; 1 confirmed, 2 needs review, 3 waiting. */
  settled: number;
}

/** A frame without a receipt. */
export interface Outstanding {
  readonly number: number;
  readonly bytes: Uint8Array;
  readonly hash: string;
  readonly entries: readonly Entry[];
  readonly device: string;
}

export interface Enrolment {
  readonly env: string;
  readonly school: string;
  readonly device: Uint8Array;
  readonly userId: string;
  readonly role: 'teacher' | 'champion';
  readonly serverKey: Uint8Array;
}

const SIGNATURE_BYTES = 64;
/** How receipts name a frame: the first 16 bytes of its hash; the signature is no part of it. */
export const frameHash = (frame: Uint8Array): Uint8Array => sha256(frame.subarray(0, -SIGNATURE_BYTES)).subarray(0, 16);

/** The first 8 bytes of a change's hash: its short name in rows and on the wire. */
export const shortHash = (hash: string): string => hash.slice(0, 16);

class Register implements RegisterState {
  step: RegisterStep | null = null;
  readonly changes = new Map<string, Entry>();
  /** Per key, its unsealed taps, the latest last. */
  readonly taps = new Map<string, string[]>();
  revision = -1;
  private merged: History | null = null;
  private shown: Map<string, readonly string[]> | null = null;

  constructor(readonly register: string) {}

  get unsealed(): number {
    return this.taps.size;
  }

  get slugs(): readonly string[] {
    const found = new Set<string>();
    this.changes.forEach(({ slug }) => slug && found.add(slug));
    return Array.from(found);
  }

  get history(): History {
    if (!this.merged) {
      const changes: Change[] = [];
      this.changes.forEach(({ chunk }) => changes.push(parseChange(chunk)));
      this.merged = merge(changes);
    }
    return this.merged;
  }

  get values(): ReadonlyMap<string, readonly string[]> {
    if (!this.shown) {
      const shown = new Map<string, readonly string[]>();
      this.history.visible.forEach((puts, key) => shown.set(key, puts.map((put) => put.value)));
      this.taps.forEach((values, key) => shown.set(key, values.slice(-1)));
      this.shown = shown;
    }
    return this.shown;
  }

  /** Something changed: compute the step anew, forget what was derived. */
  touch(structure: boolean): void {
    this.shown = null;
    if (structure) this.merged = null;
    let sent = true;
    let confirmed = true;
    let review = false;
    this.changes.forEach((entry) => {
      sent = sent && entry.verdict !== null && entry.verdict < 3;
      confirmed = confirmed && entry.settled === 1;
      review = review || entry.settled === 2;
    });
    if (this.taps.size) this.step = 'saved';
    else if (!this.changes.size) this.step = null;
    else this.step = !sent ? 'saved' : confirmed ? 'confirmed' : review ? 'review' : 'sent';
  }
}

export type { Register };

const list = (value: Value): Value[] => value as Value[];

export class Fold {
  readonly registers = new Map<string, Register>();
  enrolment: Enrolment | null = null;
  epoch = 0;
  pending = 0;
  lastCompleteSyncAtMs: number | null = null;
  lastTryAtMs: number | null = null;
  trouble: string | null = null;
  readonly notices = new Set<string>();
  directive: { id: number; level: string; reason: string; state: string } | null = null;
  /** Id of the last directive carried out. */
  done = 0;
  /** Own changes not yet in a frame, by short hash. */
  readonly unframed = new Map<string, Entry>();
  readonly outstanding = new Map<string, Outstanding>();
  /** Numbers of frames the server cannot read; tried again in the next app session. */
  readonly quarantined = new Set<number>();
  lastNumber = 0;
  lastFrameHash: Uint8Array | null = null;
  readonly rosterVersions = new Map<string, number>();
  /** Rows that this version does not understand: kept, and counted. */
  strange = 0;
  private readonly entries = new Map<string, Entry>();

  /** Take one row. A row that cannot be read is counted, never fatal: the rest of the log must stay usable. */
  apply(row: NewRow): void {
    try {
      const take = this.kinds[row.kind];
      if (take) take(unpack(row.body) as Value[], row);
      else this.strange++;
    } catch (cause) {
      if (!(cause instanceof Refusal || cause instanceof TypeError)) throw cause;
      this.strange++;
    }
  }

  entry(shortName: string): Entry | undefined {
    return this.entries.get(shortName);
  }

  /** Short hashes of every change the device holds, for a rebuild. */
  held(): string[] {
    return Array.from(this.entries.keys());
  }

  private readonly kinds: Record<string, (body: Value[], row: NewRow) => void> = {
    enrol: ([env, school, device, userId, role, serverKey, epoch]) => {
      const before = this.enrolment;
      this.enrolment = { env, school, device, userId, role, serverKey } as unknown as Enrolment;
      this.epoch = epoch as number;
      if (!before || !equal(before.device, device as Uint8Array)) {
        this.lastNumber = 0;
        this.lastFrameHash = null;
      }
      this.notices.delete('revoked');
    },
    start: () => this.quarantined.clear(),
    tap: ([key, value], row) => this.tap(this.at(row), key as string, value as string | null),
    change: ([chunk], row) => this.addChange(row, chunk as Uint8Array, true),
    pulled: ([, chunk], row) => this.addChange(row, chunk as Uint8Array, false),
    frame: (body) => this.frame(body),
    receipt: (body) => this.receipt(body),
    settled: ([revision, states], row) => this.settle(this.at(row), revision as number, list(states)),
    roster: ([classId, version]) => this.rosterVersions.set(classId as string, version as number),
    calendar: () => undefined,
    clock: () => undefined,
    directive: ([id, level, reason, state]) => {
      this.directive = state === 'done' ? null : ({ id, level, reason, state } as unknown as Fold['directive']);
      if (state === 'done') this.done = id as number;
    },
    attempt: (body, row) => {
      this.lastTryAtMs = row.atMs;
      const outcome = body[4] as string;
      this.trouble = outcome === 'ok' ? null : outcome === 'timeout' ? 'no-answer' : outcome;
    },
    notice: ([slug, detail]) => {
      if (slug === 'quarantine') this.quarantined.add(detail as number);
      else this.notices.add(slug as string);
    },
  };

  private at(row: NewRow): Register {
    const name = row.register || '';
    let found = this.registers.get(name);
    if (!found) this.registers.set(name, (found = new Register(name)));
    return found;
  }

  private touch(register: Register, structure: boolean): void {
    const before = register.step === 'saved';
    register.touch(structure);
    this.pending += +(register.step === 'saved') - +before;
  }

  private tap(register: Register, key: string, value: string | null): void {
    const values = register.taps.get(key) || [];
    if (value === null) values.pop();
    else values.push(value);
    if (values.length) register.taps.set(key, values);
    else register.taps.delete(key);
    this.touch(register, false);
  }

  private addChange(row: NewRow, chunk: Uint8Array, own: boolean): void {
    const register = this.at(row);
    const hash = hex(sha256(chunk.subarray(8))); // of a plain chunk; both kinds of rows hold only those
    if (own) register.taps.clear(); // a change seals every tap before it, of all tabs
    const name = shortHash(hash);
    if (!this.entries.has(name)) {
      // What was pulled is on the server: it counts as received there.
      const entry: Entry = { register: register.register, own, hash, chunk, verdict: own ? null : 0, slug: null, settled: 0 };
      this.entries.set(name, entry);
      register.changes.set(name, entry);
      if (own) this.unframed.set(name, entry);
    }
    this.touch(register, true);
  }

  private frame([number, hashes, bytes]: Value[]): void {
    const frame = bytes as Uint8Array;
    const entries: Entry[] = [];
    for (const short of list(hashes)) {
      const name = hex(short as Uint8Array);
      const entry = this.entries.get(name);
      if (!entry) continue;
      entry.verdict = null;
      entries.push(entry);
      this.unframed.delete(name);
      this.touch(this.registers.get(entry.register)!, false);
    }
    const hash = frameHash(frame);
    // An unanswered greeting carries nothing: it need not be kept once a later frame stands.
    this.outstanding.forEach((older, name) => older.entries.length || this.outstanding.delete(name));
    const device = hex(this.enrolment ? this.enrolment.device : new Uint8Array(0));
    this.outstanding.set(hex(hash), { number: number as number, bytes: frame, hash: hex(hash), entries, device });
    this.lastNumber = Math.max(this.lastNumber, number as number);
    this.lastFrameHash = hash;
  }

  private receipt([answerBytes, , hashes]: Value[]): void {
    const answer = unpack(answerBytes as Uint8Array) as Value[];
    const receipts = list(answer[6]);
    list(hashes).forEach((hash, i) => {
      const name = hex(hash as Uint8Array);
      const frame = this.outstanding.get(name);
      if (!frame || !Array.isArray(receipts[i])) return; // a slug: the frame could not be taken, it stays outstanding
      const verdicts = list(receipts[i]);
      this.outstanding.delete(name);
      frame.entries.forEach((entry, k) => this.judge(entry, verdicts[k]));
    });
    this.epoch = Math.max(this.epoch, answer[3] as number);
    const last = answer[5] as number;
    if (last > this.lastNumber) {
      this.lastNumber = last; // frames we do not know of: never use their numbers again
      this.lastFrameHash = null;
    }
    if (!this.pending) this.lastCompleteSyncAtMs = answer[2] as number;
  }

  private judge(entry: Entry, verdict: Value | undefined): void {
    if (verdict === undefined) return;
    const [kind, slug] = Array.isArray(verdict) ? verdict : [verdict, null];
    entry.verdict = kind as number;
    entry.slug = slug as string | null;
    this.touch(this.registers.get(entry.register)!, false);
  }

  private settle(register: Register, revision: number, states: Value[]): void {
    if (revision < register.revision) return;
    register.revision = revision;
    for (const item of states) {
      const [short, state, slug] = list(item);
      const entry = register.changes.get(hex(short as Uint8Array));
      if (!entry) continue;
      entry.settled = state as number;
      entry.slug = slug as string | null;
    }
    this.touch(register, false);
  }
}

/** A row of the log from its parts; `body` is packed. */
export const row = (kind: string, register: string | null, atMs: number, body: readonly Value[]): NewRow => ({
  kind,
  register,
  atMs,
  body: pack(body),
});

/** Six digits by which two people see that they speak of the same phone: from its public key. */
export function shortNumber(publicKey: Uint8Array): string {
  const [a, b, c, d] = sha256(concat([utf8('short1'), publicKey]));
  return String(1000000 + ((((a << 24) | (b << 16) | (c << 8) | d) >>> 0) % 1000000)).slice(1);
}
