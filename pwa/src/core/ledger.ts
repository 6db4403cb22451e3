/**
 * The lazy half of the fold: sealed changes, frames, receipts, settlements; and sealing itself.
 *
 * Invariants:
 *   1. A register is *sent* only when each of its changes has a verdict in a receipt, *confirmed* only when each is settled
 *      so (docs/protocol.md section 10). A change that is framed again has lost its verdict.
 *   2. Chunks are parsed on demand: a start reads thousands of rows, a screen shows one register.
 */
import { concat, hex, utf8 } from './bytes';
import { Change, Op, actorOf, encodeChange, parseChange } from './change';
import { History, frontier, merge } from './history';
import { sha256 } from './sha256';
import type { Fold, Ledger as LedgerOfFold, Register, Sealed } from './fold';
import { Value, unpack } from './msgpack';
import type { NewRow } from './pages';
import type { RegisterStep } from '../api';

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
  /** Its changes; null for one that is not in this log. */
  readonly entries: readonly (Entry | null)[];
  readonly device: string;
}

const SIGNATURE_BYTES = 64;
/** Marks sealed into one change: 100 of the longest keys and values stay well below the 16 kB of a frame. */
const SEAL_OPS_MAX = 100;
const PREDS_MAX = 16;

/** How receipts name a frame: the first 16 bytes of its hash; the signature is no part of it. */
export const frameHash = (frame: Uint8Array): Uint8Array => sha256(frame.subarray(0, -SIGNATURE_BYTES)).subarray(0, 16);

/** The first 8 bytes of a change's hash: its short name in rows and on the wire. */
export const shortHash = (hash: string): string => hash.slice(0, 16);

class Book implements Sealed {
  readonly changes = new Map<string, Entry>();
  /** Settlements by short hash; they may come before the change itself. */
  readonly settlements = new Map<string, { settled: number; slug: string | null }>();
  private merged: History | null = null;

  /** The merge of all changes that the server did not refuse: what a new change may build upon. */
  get history(): History {
    if (!this.merged) {
      const changes: Change[] = [];
      this.changes.forEach(({ chunk, verdict }) => verdict !== 3 && changes.push(parseChange(chunk)));
      this.merged = merge(changes);
    }
    return this.merged;
  }

  get values(): ReadonlyMap<string, readonly string[]> {
    const values = new Map<string, readonly string[]>();
    this.history.visible.forEach((puts, key) => values.set(key, puts.map((put) => put.value)));
    return values;
  }

  get slugs(): readonly string[] {
    return Array.from(new Set(this.deciding().map(({ slug }) => slug))).filter((slug): slug is string => !!slug);
  }

  /** Own changes decide: what others made is on the server by nature, and its settlement is told to its author only. */
  private deciding(): Entry[] {
    const all = Array.from(this.changes.values());
    const own = all.filter((entry) => entry.own);
    return own.length ? own : all;
  }

  get step(): RegisterStep | null {
    const entries = this.deciding();
    if (!entries.length) return null;
    if (entries.some(({ verdict }) => verdict === null || verdict > 2)) return 'saved';
    if (entries.some(({ settled }) => settled === 2)) return 'review';
    return entries.every(({ settled }) => settled === 1) ? 'confirmed' : 'sent';
  }

  add(name: string, entry: Entry): void {
    this.changes.set(name, Object.assign(entry, this.settlements.get(name)));
    this.merged = null;
  }

  judge(entry: Entry, verdict: number | null, slug: string | null): void {
    if ((entry.verdict === 3) !== (verdict === 3)) this.merged = null;
    entry.verdict = verdict;
    entry.slug = slug;
    if (verdict === null) {
      entry.settled = 0; // the server has lost it: what it once settled is void
      this.settlements.delete(shortHash(entry.hash));
    }
  }
}

export class Ledger implements LedgerOfFold {
  epoch = 0;
  /** Own changes not yet in a frame, by short hash. */
  readonly unframed = new Map<string, Entry>();
  readonly outstanding = new Map<string, Outstanding>();
  /** Numbers of frames the server cannot read; tried again in the next app session. */
  readonly quarantined = new Set<number>();
  readonly rosterVersions = new Map<string, number>();
  /** What got its receipt while this page lived and is not settled yet: its confirmation is still to be fetched. */
  readonly unsettled = new Set<Entry>();
  /** Ids of directives carried out. */
  readonly carriedOut = new Set<number>();
  lastNumber = 0;
  lastFrameHash: Uint8Array | null = null;
  private device = '';
  private readonly books = new Map<string, Book>();
  private readonly entries = new Map<string, Entry>();
  /** Hashes of what this app session sealed. Others cannot collide: their actors differ. */
  private readonly sealedNames = new Set<string>();

  constructor(private readonly fold: Fold) {}

  apply(row: NewRow, body: Value[]): void {
    const take = this.kinds[row.kind];
    if (take) take(body, row);
  }

  sealed(register: string): Book | undefined {
    return this.books.get(register);
  }

  entry(shortName: string): Entry | undefined {
    return this.entries.get(shortName);
  }

  /** The greatest id up to which every directive was carried out; 0 for none. */
  get done(): number {
    const first = Math.min(...Array.from(this.fold.waiting.keys()), Infinity);
    return Math.max(0, ...Array.from(this.carriedOut).filter((id) => id < first));
  }

  /** Short hashes of every change the device holds, for a rebuild: its own first, the newest of each first. */
  held(): { own: string[]; others: string[] } {
    const own: string[] = [];
    const others: string[] = [];
    this.entries.forEach((entry, name) => (entry.own ? own : others).unshift(name));
    return { own, others };
  }

  /** The chunks that seal a register's taps: the last value of each key, superseding all that is visible there. */
  seal(register: Register, device: Uint8Array, session: Uint8Array, timeS: number): Uint8Array[] {
    const actor = actorOf(device, session);
    const { deps, maxOp, visible, seq } = frontier(this.book(register.register).history, actor);
    const chunks: Uint8Array[] = [];
    const taps = Array.from(register.taps);
    let draft = { actor, seq: seq + 1, startOp: maxOp + 1, timeS, deps };
    while (taps.length) {
      const ops = taps.splice(0, SEAL_OPS_MAX).map(
        ([key, values]): Op => ({
          key,
          value: values[values.length - 1],
          preds: (visible.get(key) || []).map((put) => put.id).slice(-PREDS_MAX),
        }),
      );
      let change = encodeChange({ ...draft, ops });
      // A hash does not cover the register: the same marks in two registers at one instant would be one change. The seconds
      // are only evidence; one more makes them two.
      for (; this.sealedNames.has(change.hash); change = encodeChange({ ...draft, ops })) draft.timeS++;
      this.sealedNames.add(change.hash);
      chunks.push(change.chunk);
      draft = { ...draft, seq: draft.seq + 1, startOp: draft.startOp + ops.length, deps: [change.hash] };
    }
    return chunks;
  }

  private readonly kinds: Record<string, (body: any[], row: NewRow) => void> = {
    enrol: ([, , device, , , , epoch]) => {
      this.epoch = epoch;
      if (this.device !== hex(device)) {
        this.lastNumber = 0; // numbers belong to the key
        this.lastFrameHash = null;
        this.device = hex(device);
      }
    },
    start: () => this.quarantined.clear(),
    change: ([chunk], row) => this.add(row.register!, chunk, true),
    pulled: ([, chunk], row) => this.add(row.register!, chunk, false),
    frame: ([number, hashes, bytes]) => this.frame(number, hashes, bytes),
    receipt: ([answer, , hashes]) => this.receipt(unpack(answer) as Value[], hashes),
    settled: ([, states], row) => this.settle(row.register!, states),
    roster: ([classId, version]) => this.rosterVersions.set(classId, version),
    directive: ([id, , , state]) => state === 'done' && this.carriedOut.add(id),
    notice: ([slug, detail]) => slug === 'quarantine' && this.quarantined.add(detail),
  };

  private book(register: string): Book {
    let found = this.books.get(register);
    if (!found) this.books.set(register, (found = new Book()));
    return found;
  }

  private touch(register: string): void {
    this.fold.at(register).touch();
  }

  private add(register: string, chunk: Uint8Array, own: boolean): void {
    const hash = hex(sha256(chunk.subarray(8))); // of a plain chunk; both kinds of rows hold only those
    const name = shortHash(hash);
    if (!this.entries.has(name)) {
      // What was pulled is on the server: it counts as received there.
      const entry: Entry = { register, own, hash, chunk, verdict: own ? null : 0, slug: null, settled: 0 };
      this.entries.set(name, entry);
      this.book(register).add(name, entry);
      if (own) this.unframed.set(name, entry);
    }
    this.touch(register);
  }

  private frame(number: number, hashes: Uint8Array[], bytes: Uint8Array): void {
    const entries = hashes.map((short) => this.entries.get(hex(short)) || null);
    for (const entry of entries) {
      if (!entry) continue;
      this.unframed.delete(shortHash(entry.hash));
      this.judge(entry, null);
    }
    const hash = frameHash(bytes);
    // An unanswered greeting carries nothing: it need not be kept once a later frame stands.
    this.outstanding.forEach((older, name) => older.entries.length || this.outstanding.delete(name));
    this.outstanding.set(hex(hash), { number, bytes, hash: hex(hash), entries, device: this.device });
    if (number >= this.lastNumber) {
      this.lastNumber = number;
      this.lastFrameHash = hash;
    }
  }

  private receipt(answer: Value[], hashes: Uint8Array[]): void {
    const [, , serverMs, epoch, , last, receipts] = answer as [string, Uint8Array, number, number, Uint8Array, number, Value[]];
    hashes.forEach((hash, i) => {
      const frame = this.outstanding.get(hex(hash));
      const verdicts = receipts[i];
      // A slug, or another count of verdicts: the frame was not taken, it stays outstanding.
      if (!frame || !Array.isArray(verdicts) || verdicts.length !== frame.entries.length) return;
      this.outstanding.delete(frame.hash);
      frame.entries.forEach((entry, k) => entry && this.judge(entry, verdicts[k]));
    });
    this.epoch = Math.max(this.epoch, epoch);
    if (last > this.lastNumber) {
      this.lastNumber = last; // frames we do not know of: never use their numbers again
      this.lastFrameHash = null;
    }
    if (!this.fold.pending) this.fold.lastCompleteSyncAtMs = serverMs;
  }

  private judge(entry: Entry, verdict: Value): void {
    const [kind, slug] = Array.isArray(verdict) ? verdict : [verdict, null];
    this.book(entry.register).judge(entry, kind, slug);
    if (kind !== null && kind < 3 && !entry.settled) this.unsettled.add(entry);
    else this.unsettled.delete(entry);
    this.touch(entry.register);
  }

  /** The last word counts, whatever its revision: a restored server begins with lower ones, and one may come in parts. */
  private settle(register: string, states: [Uint8Array, number, string | null][]): void {
    const book = this.book(register);
    for (const [short, state, slug] of states) {
      const entry = book.changes.get(hex(short));
      const settlement = { settled: state, slug };
      book.settlements.set(hex(short), settlement);
      if (entry) this.unsettled.delete(Object.assign(entry, settlement));
    }
    this.touch(register);
  }
}

/** Six digits by which two people see that they speak of the same phone: from its public key. */
export function shortNumber(publicKey: Uint8Array): string {
  const [a, b, c, d] = sha256(concat([utf8('short1'), publicKey]));
  return String(1000000 + ((((a << 24) | (b << 16) | (c << 8) | d) >>> 0) % 1000000)).slice(1);
}
