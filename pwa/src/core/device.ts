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
import type { Ledger } from './ledger';
import type { ClassInfo, Device, Identity, RegisterState, State } from '../api';

declare const __APP__: string;

/** How a conversation with the server ended. */
export interface Outcome {
  ok: boolean;
  /** Something became durable on the server: ask once more for its confirmation. */
  confirm: boolean;
  retryAfterMs: number;
}

export interface Calendar {
  readonly version: number;
  readonly offsets: Offsets;
  readonly closed: readonly (readonly [date: string, slug: string])[];
  readonly sessions: readonly string[];
}

const LEDGER_DEADLINE_MS = 3000;
const SEAL_IDLE_MS = 20000;
const CONFIRM_AFTER_MS = 3000;
const BACKOFF_BASE_MS = 5000;
const BACKOFF_CAP_MS = 900000;
/** Somebody asked with a finger, or the network came back: the back-off does not apply, `Retry-After` does. */
const AT_ONCE = /^(hand|reconnect|enrol)$/;

/** What the lazy half needs from the eager one. */
export class Core {
  readonly fold = new Fold();
  readonly store: Store;
  session!: Uint8Array;
  /** `[server_ms, mono_ms when it came]` of the last answer of this app session. */
  beacon: readonly [number, number] | null = null;
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
    return this.row('start', null, [this.session, this.app]);
  }

  /** Load the lazy half of the fold; to be awaited before anything is sealed, framed or asked of it. */
  async complete(): Promise<Ledger> {
    const { fold } = this;
    if (!fold.ledger) {
      const { Ledger } = await import('./ledger');
      if (!fold.ledger) fold.complete(new Ledger(fold));
    }
    return fold.ledger as unknown as Ledger;
  }

  /** Rows that seal the unsealed taps of one register or of all. To be called inside a `write`, after `complete`. */
  sealRows(only?: string): NewRow[] {
    const { enrolment, ledger, registers } = this.fold;
    const rows: NewRow[] = [];
    if (!enrolment) return rows; // no key, no actor: the taps wait in the log
    registers.forEach((register, name) => {
      if (register.taps.size && (only === undefined || only === name)) {
        const chunks = (ledger as unknown as Ledger).seal(register, enrolment.device, this.session, Math.floor(this.ports.wallMs() / 1000));
        for (const chunk of chunks) rows.push(this.row('change', name, [chunk]));
      }
    });
    return rows;
  }

  /** Seal unsealed taps; also the way to learn what other tabs wrote. */
  async seal(only?: string): Promise<void> {
    if (this.fold.enrolment) await this.complete();
    await this.write(() => {
      const rows = this.sealRows(only);
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
      directive: fold.directive,
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
  private again = false;
  private failures = 0;
  private notBeforeMs = 0;
  private hardNotBeforeMs = 0;
  private cancelRetry: () => void = () => undefined;
  private cancelSeal: () => void = () => undefined;

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
    return this.core.seal(register);
  }

  sync(reason: string): Promise<void> {
    const { core } = this;
    if (this.running) {
      this.again = true;
      return this.running;
    }
    const now = core.ports.monoMs();
    if (!core.fold.enrolment || now < this.hardNotBeforeMs || (now < this.notBeforeMs && !AT_ONCE.test(reason))) {
      return this.seal();
    }
    this.running = this.converse(reason).then(() => {
      this.running = null;
    });
    return this.running;
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

  async exportBundle(): Promise<Uint8Array> {
    return (await this.wire()).exportBundle(this.core);
  }

  async importFile(file: Uint8Array): Promise<unknown> {
    await this.running;
    return (await this.wire()).importFile(this.core, file);
  }

  async call(command: string, args: readonly unknown[]): Promise<unknown> {
    await this.running;
    return (await this.wire()).call(this.core, command, args as Value[]);
  }

  private async wire(): Promise<typeof import('./wire')> {
    await this.core.complete();
    return import('./wire');
  }

  private background(reason: string): void {
    this.sync(reason).catch((cause) => {
      this.core.trouble = cause instanceof Refusal ? cause.slug : 'storage';
      console.error(cause);
      this.core.notify();
    });
  }

  /** One attempt; whatever comes of it is in the state. Never rejects for what the network does. */
  private async converse(reason: string): Promise<void> {
    const { core } = this;
    const { ports } = core;
    this.cancelRetry();
    this.cancelSeal();
    core.syncing = true;
    core.trouble = null;
    core.notify();
    let outcome: Outcome | null = null;
    try {
      await this.seal();
      do {
        this.again = false;
        outcome = null;
        if (!ports.online() && reason !== 'hand') throw new Refusal('offline');
        const wire = await this.wire();
        await ports.exclusively(async () => {
          outcome = await wire.converse(core);
        });
      } while (this.again && outcome && (outcome as Outcome).ok);
    } catch (cause) {
      // No network, or the lazy half could not be loaded (slug `offline` too): nothing was sent, nothing changed.
      core.trouble = (cause as Refusal).slug || 'fault';
      if (!(cause as Refusal).slug) console.error(cause);
      outcome = { ok: false, confirm: false, retryAfterMs: 0 };
    }
    core.syncing = false;
    this.schedule(outcome);
    core.notify();
  }

  /** Full jitter after a failure; once more after 3 s for the confirmation; soon when another tab is at it. */
  private schedule(outcome: Outcome | null): void {
    const { ports, fold } = this.core;
    const now = ports.monoMs();
    let wait = 0;
    if (!outcome) wait = fold.pending ? BACKOFF_BASE_MS : 0;
    else if (outcome.ok) {
      this.failures = 0;
      this.notBeforeMs = 0;
      if (outcome.confirm) wait = CONFIRM_AFTER_MS;
    } else {
      wait = ports.uniform() * Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** this.failures++);
      wait = Math.max(wait, outcome.retryAfterMs, 1);
      this.notBeforeMs = now + wait;
      this.hardNotBeforeMs = outcome.retryAfterMs ? now + outcome.retryAfterMs : 0;
    }
    if (wait) this.cancelRetry = ports.later(Math.ceil(wait), () => this.background('timer'));
  }
}

/** Open the log, fold it, begin an app session. The session's first row is written behind the screen's back. */
export async function openDevice(ports: Ports = browserPorts(), app = typeof __APP__ === 'string' ? __APP__ : 'dev'): Promise<Device> {
  const core = new Core(ports, app);
  await core.store.open();
  const start = core.begin();
  if (core.fold.enrolment) {
    // On a phone in use the lazy half is in the cache. Where it cannot be had soon, capture goes on without it.
    const complete = core.complete().then(() => core.notify());
    const deadline = new Promise<void>((done) => ports.later(LEDGER_DEADLINE_MS, done));
    await Promise.race([complete.catch((cause) => console.error(cause)), deadline]);
    core.write(() => ({ rows: [start, ...(core.fold.ledger ? core.sealRows() : [])] })).catch((cause) => console.error(cause));
  }
  core.notify();
  return new Phone(core);
}
