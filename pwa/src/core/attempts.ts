/**
 * When to talk to the server: one attempt at a time, full jitter after a failure, and the confirmation of what was sent.
 *
 * Invariants:
 *   1. At most one timer is set; every attempt replaces it.
 *   2. The confirmation is owed by the *state* (something got its receipt and is not settled), not by a flag of the last
 *      attempt. It is asked for a few times, ever more rarely, only while somebody looks: never a poll without end.
 */
import { Refusal } from './bytes';
import { Outcome, converse } from './converse';
import type { Core } from './device';
import { ledgerOf } from './outbox';

const BACKOFF_BASE_MS = 5000;
const BACKOFF_CAP_MS = 900000;
/** Waits before each ask for a confirmation (docs/protocol.md section 5 names the first). A new receipt begins anew. */
export const CONFIRM_AFTER_MS = [3000, 15000, 60000, 300000];
/** Somebody asked with a finger, or the network came back: the back-off does not apply, `Retry-After` does. */
const AT_ONCE = /^(hand|reconnect|enrol)$/;

export class Attempts {
  private failures = 0;
  private notBeforeMs = 0;
  private hardNotBeforeMs = 0;
  /** How often the confirmation has been asked for since the last receipt. */
  private asked = 0;
  private cancel: () => void = () => undefined;

  /** `again` begins an attempt of its own. */
  constructor(
    private readonly core: Core,
    private readonly again: (reason: string) => void,
  ) {}

  /** One attempt, unless it is too early; whatever comes of it is in the state. Never rejects for what the network does. */
  async run(reason: string): Promise<void> {
    const { core } = this;
    const { ports } = core;
    const now = ports.monoMs();
    if (now < this.hardNotBeforeMs || (now < this.notBeforeMs && !AT_ONCE.test(reason))) return;
    this.cancel();
    core.syncing = true;
    core.trouble = null;
    core.notify();
    let outcome: Outcome | null = null; // stays null when another tab is at it
    try {
      if (!ports.online() && reason !== 'hand') throw new Refusal('offline');
      await ports.exclusively(async () => {
        outcome = await converse(core);
      });
    } catch (cause) {
      // Nothing was sent, nothing changed.
      core.trouble = (cause as Refusal).slug || 'fault';
      if (!(cause as Refusal).slug) console.error(cause);
      outcome = { ok: false, received: false, retryAfterMs: 0 };
    }
    core.syncing = false;
    this.schedule(outcome);
    core.notify();
  }

  private schedule(outcome: Outcome | null): void {
    const { core } = this;
    const { ports } = core;
    if (outcome && !outcome.ok) return this.backOff(outcome.retryAfterMs);
    if (outcome) {
      this.failures = 0;
      this.notBeforeMs = 0;
      if (outcome.received) this.asked = 0;
    } else if (core.fold.pending) return this.after(BACKOFF_BASE_MS);
    const wait = CONFIRM_AFTER_MS[this.asked];
    if (!wait || !ledgerOf(core).unsettled.size) return;
    this.after(wait, () => {
      if (!ports.visible()) return; // coming back to the page asks by itself
      this.asked++;
      this.again('timer');
    });
  }

  private backOff(retryAfterMs: number): void {
    const { ports } = this.core;
    const jittered = ports.uniform() * Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** this.failures++);
    const wait = Math.max(jittered, retryAfterMs, 1);
    const now = ports.monoMs();
    this.notBeforeMs = now + wait;
    this.hardNotBeforeMs = retryAfterMs ? now + retryAfterMs : 0;
    this.after(wait);
  }

  private after(ms: number, then = (): void => this.again('timer')): void {
    this.cancel = this.core.ports.later(Math.ceil(ms), then);
  }
}
