/** What the screens may ask of the device. The only door between `screen/` and `core/`. */

export type RegisterStep = 'saved' | 'sent' | 'confirmed' | 'review';

/** One enrolment: who uses this phone. Names live in the cache, not in the log. */
export interface Identity {
  env: string;
  school: string;
  schoolName: string;
  userId: string;
  userName: string;
  role: 'teacher' | 'champion';
  device: string; // hex
  shortNumber: string; // six digits, also shown on the champion's screen
}

export interface ClassInfo {
  id: string;
  name: string;
  grade: string;
  version: number;
  pupils: readonly (readonly [id: string, name: string])[];
}

/** Fold of the log over one register. `register` is `class/date/session`. */
export interface RegisterState {
  register: string;
  step: RegisterStep | null; // null: nothing here yet (not taken)
  /** Visible value per key (pupil id or `~bulk`/`~session`), the winner last; more than one: authors differ. */
  values: ReadonlyMap<string, readonly string[]>;
  unsealed: number; // taps not yet sealed into a change
  slugs: readonly string[]; // why it needs review
  partial: boolean; // sealed marks are not read yet: `values` shows the unsealed taps only
}

export interface State {
  ready: boolean;
  /** `memory`: no durable storage on this phone (private mode, quota); say so plainly and offer the file. */
  storage: 'durable' | 'memory';
  identity: Identity | null;
  classes: readonly ClassInfo[];
  sessions: readonly string[];
  closedDates: ReadonlyMap<string, string>;
  registers: ReadonlyMap<string, RegisterState>;
  pending: number; // registers not yet sent
  syncing: boolean;
  /** Why the last attempt gave nothing: `offline`, `no-answer` (portal, broken), `busy`, or a problem slug. */
  trouble: string | null;
  lastCompleteSyncAtMs: number | null;
  lastTryAtMs: number | null;
  notices: readonly string[]; // `wiped-phone`, `restored-copy`, `revoked`
  directive: { id: number; level: string; reason: string } | null;
}

/** What a rule of the school says against an order: its name, the sentence in both languages, who can open it, since when. */
export interface Rule {
  readonly name: string;
  readonly en: string;
  readonly ar: string;
  readonly who: string;
  readonly closedOn: string;
}

/** A refusal with its slug (docs/protocol.md section 9); `safe` tells whether work is safe on the phone. */
export interface Problem extends Error {
  slug: string;
  retry: string;
  safe: boolean;
  /** Of `rule` and `forbidden`. Unsigned, as every problem: words to show, which decide nothing. */
  rule?: Rule | null;
}

export interface Device {
  readonly state: State;
  subscribe(listener: () => void): () => void;
  /** Today's civil date in the school's zone, and the capture value's `ms` for a date, from the offset table. */
  today(): string;
  msSinceMidnight(date: string): number;
  enrol(school: string, code: string, label: string): Promise<Identity>;
  /** Load what enrolment and sending need, so that they need not wait for it. */
  prepare(): Promise<void>;
  /** Append taps in one strict transaction; resolves when durable. value null takes back an unsealed tap. */
  tap(register: string, taps: readonly (readonly [key: string, value: string | null])[]): Promise<void>;
  /** Seal the unsealed taps (of one register, or all) into changes. Resolves when durable. */
  seal(register?: string): Promise<void>;
  /** Send what is pending and pull. Resolves when the attempt ended, whatever came of it. */
  sync(reason: string): Promise<void>;
  /** The SQLite log file, all pending work framed and signed in it first. */
  exportLog(): Promise<Uint8Array>;
  exportBundle(): Promise<Uint8Array>;
  /** Take a bundle, or pick the frames out of another phone's log file, and hand them in (role permitting). */
  importFile(file: Uint8Array): Promise<unknown>;
  /** A champion's call (docs/protocol.md section 8). */
  call(command: string, args: readonly unknown[]): Promise<unknown>;
}
