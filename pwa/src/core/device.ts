/**
 * The device: the facade the screens talk to, and the only loop of the core.
 *
 * Capture (log, tap, seal, fold) is in the start page; everything that needs the network or a signature is the lazy module
 * `wire.ts`, which gets this module's {@link Core}. Invariants:
 *   1. Every app session has a fresh nonce and so a fresh actor; (actor, seq) is never used twice, copied phones included.
 *   2. What a promise of `tap` or `seal` resolved for is in the log. Sealing happens inside the log's transaction, over all
 *      rows of all tabs.
 *   3. No answer and no error deletes anything.
 */
import { Refusal, hex } from './bytes';
import { Enrolment, Fold, row } from './fold';
import type { Value } from './msgpack';
import type { NewRow } from './pages';
import { Ports, browserPorts } from './ports';
import { Offsets, isMark, isKey, isRegister, isoDate, midnight, offsetAt } from './register';
import { Store } from './store';
import type { Attempts } from './attempts';
import type { Ledger } from './ledger';
import type { ClassInfo, Device, Identity, RegisterState, State } from '../api';

declare const __APP__: string;

export interface Calendar {
  readonly version: number;
  readonly offsets: Offsets;
  readonly closed: readonly (readonly [date: string, slug: string])[];
  readonly sessions: readonly string[];
}

const LEDGER_DEADLINE_MS = 3000;
/** A register that was tapped less than this ago may still be worked at. */
export const SEAL_IDLE_MS = 20000;
/** Nobody asked for these with a finger: a register that is being worked at stays open, so that undo still undoes. */
const BACKGROUND = /^(open|return|reconnect|timer|background|enrol)$/;
const LOAD_AGAIN_MS = 60000;

/** What the lazy half needs from the eager one. */
export class Core {
  readonly fold = new Fold();
  readonly store: Store;
  session!: Uint8Array;
  /** `[server_ms, mono_ms when it came]` of the last answer of this app session. */
  beacon: readonly [number, number] | null = null;
  /** The server has heard our version from this app session. */
  told = false;
  syncing = false;
  /** Trouble that left no row in the log, such as no network at all. */
  trouble: string | null = null;
  private origin = 0;
  private listeners: (() => void)[] = [];
  state!: State;

  constructor(
    readonly ports: Ports,
    readonly app: string,
  ) {
    this.store = new Store(ports.indexedDb, (added) => this.fold.apply(added), 'hudur', ports.later);
    this.snapshot();
  }

  /** The version, as long as the wire allows. */
  get release(): string {
    return this.app.slice(0, 16);
  }

  /** Milliseconds since this app session began. */
  monoMs(): number {
    return this.ports.monoMs() - this.origin;
  }

  row(kind: string, register: string | null, body: readonly Value[]): NewRow {
    return row(kind, register, this.ports.wallMs(), body);
  }

  /** A new app session: at start, at enrolment, and when the server knows frames of ours that we do not. */
  begin(): NewRow {
    this.session = this.ports.random(8);
    this.origin = this.ports.monoMs();
    this.beacon = null;
    this.told = false;
    return this.row('start', null, [this.session, this.app]);
  }

  /** Load the lazy half of the fold; to be awaited before anything is sealed, framed or asked of it. */
  async complete(): Promise<Ledger> {
    const { fold } = this;
    if (!fold.ledger) {
      const { Ledger } = await import('./ledger');
      if (!fold.ledger) {
        const ledger = new Ledger(fold);
        fold.complete(ledger);
        ledger.unsettled.clear(); // of earlier app sessions: opening asks for those anyway
      }
    }
    return fold.ledger as unknown as Ledger;
  }

  /**
   * Rows that seal the unsealed taps of one register or of all, but not of those tapped in the last `idleMs`. To be called
   * inside a `write`, after `complete`.
   */
  sealRows(only?: string, idleMs = 0): NewRow[] {
    const { enrolment, ledger, registers } = this.fold;
    const rows: NewRow[] = [];
    if (!enrolment) return rows; // no key, no actor: the taps wait in the log
    const now = this.ports.wallMs();
    registers.forEach((register, name) => {
      const age = now - register.tappedAtMs; // negative when the clock was put back: then it says nothing
      if (register.taps.size && (only === undefined || only === name) && (age < 0 || age >= idleMs)) {
        const chunks = (ledger as unknown as Ledger).seal(register, enrolment.device, this.session, Math.floor(now / 1000));
        for (const chunk of chunks) rows.push(this.row('change', name, [chunk]));
      }
    });
    return rows;
  }

  /** Seal unsealed taps; also the way to learn what other tabs wrote. */
  async seal(only?: string, idleMs?: number): Promise<void> {
    if (this.fold.enrolment) await this.complete();
    await this.write(() => {
      const rows = this.sealRows(only, idleMs);
      return rows.length ? { rows } : null;
    });
  }

  /** Append rows in one durable transaction, then tell the screens. */
  async write(build: () => { rows: readonly NewRow[]; cache?: Record<string, unknown> } | null): Promise<boolean> {
    const wrote = await this.store.write(build);
    this.notify();
    return wrote;
  }

  subscribe(listener: () => void): () => void {
    this.listeners.push(listener);
    return () => (this.listeners = this.listeners.filter((other) => other !== listener));
  }

  notify(): void {
    this.snapshot();
    this.listeners.forEach((listener) => listener());
  }

  get calendar(): Calendar {
    const found = this.store.cache.get('calendar') as Calendar | undefined;
    // Before the first pull the phone's own zone has to do.
    return found || { version: 0, offsets: [[0, new Date(this.ports.wallMs()).getTimezoneOffset() * -60]], closed: [], sessions: ['day'] };
  }

  private snapshot(): void {
    const { fold, store } = this;
    const { cache } = store;
    const classes = ((cache.get('classes') as [string, string, string][] | undefined) || []).map(([id, name, grade]): ClassInfo => {
      const roster = cache.get('roster:' + id) as { version: number; pupils: ClassInfo['pupils'] } | undefined;
      return { id, name, grade, version: roster ? roster.version : 0, pupils: roster ? roster.pupils : [] };
    });
    this.state = {
      ready: true,
      storage: store.mode,
      identity: fold.enrolment && identityOf(fold.enrolment, cache.get('names') as Names),
      classes,
      sessions: this.calendar.sessions,
      closedDates: new Map(this.calendar.closed as [string, string][]),
      registers: fold.registers as ReadonlyMap<string, RegisterState>,
      pending: fold.pending,
      syncing: this.syncing,
      trouble: this.trouble || fold.trouble,
      lastCompleteSyncAtMs: fold.lastCompleteSyncAtMs,
      lastTryAtMs: fold.lastTryAtMs,
      notices: Array.from(fold.notices),
      directive: Array.from(fold.waiting.values()).pop() || null,
    };
  }
}

export interface Names {
  schoolName: string;
  userName: string;
  shortNumber: string;
}

export const identityOf = (enrolment: Enrolment, names?: Names): Identity => ({
  env: enrolment.env,
  school: enrolment.school,
  schoolName: names ? names.schoolName : enrolment.school,
  userId: enrolment.userId,
  userName: names ? names.userName : enrolment.userId,
  role: enrolment.role,
  device: hex(enrolment.device),
  shortNumber: names ? names.shortNumber : '',
});

class Phone implements Device {
  private running: Promise<void> | null = null;
  /** What was asked for while an attempt ran. */
  private again: string | null = null;
  private attempts: Attempts | null = null;
  private cancelSeal: () => void = () => undefined;
  private cancelLoad: () => void = () => undefined;

  constructor(private readonly core: Core) {}

  get state(): State {
    return this.core.state;
  }

  subscribe(listener: () => void): () => void {
    return this.core.subscribe(listener);
  }

  today(): string {
    const now = this.core.ports.wallMs();
    return isoDate(now + offsetAt(this.core.calendar.offsets, now));
  }

  msSinceMidnight(date: string): number {
    return this.core.ports.wallMs() - midnight(this.core.calendar.offsets, date);
  }

  async tap(register: string, taps: readonly (readonly [key: string, value: string | null])[]): Promise<void> {
    if (!isRegister(register)) throw new Refusal('bad-register', register);
    for (const [key, value] of taps) if (!isKey(key) || (value !== null && !isMark(key, value))) throw new Refusal('bad-mark', key);
    const mono = this.core.monoMs();
    const rows = taps.map(([key, value]) => this.core.row('tap', register, [key, value, mono]));
    await this.core.write(() => ({ rows }));
    this.cancelSeal();
    this.cancelSeal = this.core.ports.later(SEAL_IDLE_MS, () => this.background('save'));
  }

  seal(register?: string): Promise<void> {
    if (!register) this.cancelSeal();
    return this.core.seal(register);
  }

  async sync(reason: string): Promise<void> {
    if (!BACKGROUND.test(reason)) await this.seal().catch((cause) => this.blame(cause));
    if (!this.core.fold.enrolment) return;
    this.again = reason;
    await (this.running = this.running || this.attempt());
  }

  async enrol(school: string, code: string, label: string): Promise<Identity> {
    await this.running;
    const identity = await (await this.wire()).enrol(this.core, school, code, label);
    this.background('enrol');
    return identity;
  }

  /** A phone that cannot sign (its key is lost, the lazy half cannot be had) still hands out its log, which then says so. */
  async exportLog(): Promise<Uint8Array> {
    try {
      await (await this.wire()).frameAll(this.core);
    } catch (cause) {
      console.error(cause);
      await this.core.write(() => ({ rows: [this.core.row('notice', null, ['unsigned-export', String(cause)])] }));
    }
    return this.core.store.bytes();
  }

  exportBundle(): Promise<Uint8Array> {
    return this.wire().then((wire) => wire.exportBundle(this.core));
  }

  async importFile(file: Uint8Array): Promise<unknown> {
    await this.running;
    return (await this.wire()).importFile(this.core, file);
  }

  async call(command: string, args: readonly unknown[]): Promise<unknown> {
    await this.running;
    return (await this.wire()).call(this.core, command, args as Value[]);
  }

  async prepare(): Promise<void> {
    await this.wire();
  }

  private async wire(): Promise<typeof import('./wire')> {
    // In this order: `wire` is run behind the ledger, and uses what that one carries (see build.mjs).
    const [, wire] = await Promise.all([this.core.complete(), import('./wire')]);
    return wire;
  }

  private readonly background = (reason: string): void => {
    this.sync(reason).catch((cause) => this.blame(cause));
  };

  /** What failed goes to the status line: no network, the lazy half cannot be had (`offline` too), storage. */
  private blame(cause: unknown): void {
    this.core.trouble = (cause as Refusal).slug || 'fault';
    if (!(cause as Refusal).slug) console.error(cause);
    this.core.notify();
  }

  /** Attempts, as long as somebody asks for one meanwhile. */
  private async attempt(): Promise<void> {
    await null; // `running` stands before anything else happens
    while (this.again) {
      const reason = this.again;
      this.again = null;
      try {
        const { Attempts } = await this.wire();
        this.attempts = this.attempts || new Attempts(this.core, this.background);
        await this.attempts.run(reason);
      } catch (cause) {
        this.blame(cause);
        this.cancelLoad();
        this.cancelLoad = this.core.ports.later(LOAD_AGAIN_MS * (1 + this.core.ports.uniform()), () => this.background('timer'));
      }
    }
    this.running = null;
  }
}

/** Open the log, fold it, begin an app session. The session's first row is written behind the screen's back. */
export async function openDevice(ports: Ports = browserPorts(), app = typeof __APP__ === 'string' ? __APP__ : 'dev'): Promise<Device> {
  const core = new Core(ports, app);
  await core.store.open();
  const start = core.begin();
  if (core.fold.enrolment) {
    // On a phone in use the lazy half is in the cache. Where it cannot be had soon, capture goes on without it.
    const complete = core.complete().then(() => core.notify(), (cause) => console.error(cause));
    if (ports.modulesAtHand()) await Promise.race([complete, new Promise<void>((done) => ports.later(LEDGER_DEADLINE_MS, done))]);
    core.write(() => ({ rows: [start, ...(core.fold.ledger ? core.sealRows() : [])] })).catch((cause) => console.error(cause));
  }
  core.notify();
  return new Phone(core);
}
