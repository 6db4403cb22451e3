/**
 * The log, folded: every state the screens show and every decision the exchange takes is a function of the rows.
 *
 * This half is in the start page and knows taps. What needs hashes and merged histories (sealed changes, receipts) is the
 * {@link Ledger}'s, a lazy module; rows that come before it is there wait in `backlog`, and until then a register with
 * sealed work is shown as saved: less than the truth, never more.
 *
 * Invariants:
 *   1. `apply` is called once for each row, in the log's order; rows are never taken back.
 *   2. A register with an unsealed tap is *saved*. Whatever is more than that, the ledger says.
 */
import { Refusal } from './bytes';
import { Value, pack, unpack } from './msgpack';
import type { NewRow } from './pages';
import type { RegisterState, RegisterStep } from '../api';

export interface Enrolment {
  readonly env: string;
  readonly school: string;
  readonly device: Uint8Array;
  readonly userId: string;
  readonly role: 'teacher' | 'champion';
  readonly serverKey: Uint8Array;
}

/** What the lazy half knows about one register. */
export interface Sealed {
  readonly step: RegisterStep | null;
  readonly slugs: readonly string[];
  /** Visible values per key, the winner last. */
  readonly values: ReadonlyMap<string, readonly string[]>;
}

/** The lazy half of the fold. */
export interface Ledger {
  apply(row: NewRow, body: Value[]): void;
  sealed(register: string): Sealed | undefined;
}

export class Register implements RegisterState {
  step: RegisterStep | null = null;
  /** Per key, its unsealed taps, the latest last. */
  readonly taps = new Map<string, string[]>();
  /** It has sealed changes. */
  written = false;
  /** Others have written in it. */
  pulled = false;
  /** Wall clock of its latest tap, whichever tab made it. */
  tappedAtMs = 0;
  /** A row of it cannot be read: it stays pending, so that a person looks. */
  damaged = false;
  private shown: Map<string, readonly string[]> | null = null;

  constructor(
    readonly register: string,
    private readonly fold: Fold,
  ) {}

  /** Sealed marks wait for the ledger. */
  get partial(): boolean {
    return (this.written || this.pulled) && !this.fold.ledger;
  }

  get unsealed(): number {
    return this.taps.size;
  }

  private get sealed(): Sealed | null {
    return (this.fold.ledger && this.fold.ledger.sealed(this.register)) || null;
  }

  get slugs(): readonly string[] {
    return this.sealed ? this.sealed.slugs : [];
  }

  get values(): ReadonlyMap<string, readonly string[]> {
    if (!this.shown) {
      this.shown = new Map(this.sealed ? this.sealed.values : []);
      this.taps.forEach((values, key) => this.shown!.set(key, values.slice(-1)));
    }
    return this.shown;
  }

  /** Something changed: compute the step anew, forget what was derived. */
  touch(): void {
    this.shown = null;
    this.fold.pending -= +(this.step === 'saved');
    this.step = this.damaged || this.taps.size || (this.written && !this.fold.ledger) ? 'saved' : this.sealed && this.sealed.step;
    this.fold.pending += +(this.step === 'saved');
  }
}

export class Fold {
  readonly registers = new Map<string, Register>();
  ledger: Ledger | null = null;
  enrolment: Enrolment | null = null;
  pending = 0;
  lastCompleteSyncAtMs: number | null = null;
  lastTryAtMs: number | null = null;
  trouble: string | null = null;
  readonly notices = new Set<string>();
  /** Directives that came and are not carried out yet, by id. */
  readonly waiting = new Map<number, { id: number; level: string; reason: string }>();
  /** Rows that this version cannot read: kept in the log, and counted. */
  strange = 0;
  private backlog: NewRow[] = [];

  /** Take one row. One that cannot be read is counted, never fatal: the rest of the log must stay usable. */
  apply(row: NewRow): void {
    this.reading(row, (body) => {
      const take = this.kinds[row.kind];
      if (take) take(body, row);
      if (this.ledger) this.ledger.apply(row, body);
      else if (row.kind !== 'tap') this.backlog.push(row);
    });
  }

  /** The lazy half has come: it takes the rows it has missed. */
  complete(ledger: Ledger): void {
    this.ledger = ledger;
    this.backlog.forEach((row) => this.reading(row, (body) => ledger.apply(row, body)));
    this.backlog = [];
    this.registers.forEach((register) => register.touch());
  }

  at(name: string): Register {
    let found = this.registers.get(name);
    if (!found) this.registers.set(name, (found = new Register(name, this)));
    return found;
  }

  private reading(row: NewRow, take: (body: Value[]) => void): void {
    try {
      take(unpack(row.body) as Value[]);
    } catch (cause) {
      if (!(cause instanceof Refusal || cause instanceof TypeError)) throw cause;
      this.strange++;
      if (row.register && /^(tap|change)$/.test(row.kind)) {
        const register = this.at(row.register);
        register.damaged = true;
        register.touch();
      }
    }
  }

  private readonly kinds: Record<string, (body: any[], row: NewRow) => void> = {
    enrol: ([env, school, device, userId, role, serverKey]) => {
      this.enrolment = { env, school, device, userId, role, serverKey };
      this.notices.delete('revoked');
    },
    tap: ([key, value], row) => {
      const register = this.at(row.register!);
      const values = register.taps.get(key) || [];
      if (value === null) values.pop();
      else values.push(value);
      if (values.length) register.taps.set(key, values);
      else register.taps.delete(key);
      register.tappedAtMs = row.atMs;
      register.touch();
    },
    change: (_body, row) => {
      const register = this.at(row.register!);
      register.taps.clear(); // a change seals every tap before it, of all tabs
      register.written = true;
      register.touch();
    },
    pulled: (_body, row) => {
      this.at(row.register!).pulled = true;
    },
    directive: ([id, level, reason, state]) => {
      if (state === 'done') this.waiting.delete(id);
      else this.waiting.set(id, { id, level, reason });
    },
    attempt: ([, , , , outcome], row) => {
      this.lastTryAtMs = row.atMs;
      this.trouble = outcome === 'ok' ? null : outcome === 'timeout' ? 'no-answer' : outcome;
    },
    notice: ([slug]) => {
      if (slug !== 'quarantine') this.notices.add(slug);
    },
  };
}

/** A row of the log from its parts; `body` is packed. */
export const row = (kind: string, register: string | null, atMs: number, body: readonly Value[]): NewRow => ({
  kind,
  register,
  atMs,
  body: pack(body),
});
