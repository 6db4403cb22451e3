/**
 * What goes into the next frames: own changes without a receipt, newest school day first.
 *
 * A frame is in the log, durable, before it is sent; its bytes never change; its number is taken inside the log's
 * transaction, so two tabs never use one number.
 */
import { Refusal, concat, hex } from './bytes';
import { unhex } from './bytes-more';
import { actorOf, parseChange } from './change';
import type { Core } from './device';
import { Ask, CHANGES_MAX, FRAME_BYTES_MAX, FramedChange, deflate, signedPart } from './frame';
import { DeviceKey, sign } from './keys';
import type { Entry, Ledger, Outstanding } from './ledger';

/** Header, ask and signature around the changes of a frame. */
export const FRAME_ROOM = 512;

const dateOf = (register: string): string => register.split('/')[1];
const newestFirst = (a: string, b: string): number => (a < b ? 1 : a > b ? -1 : 0);
const newest = (frame: Outstanding): string => frame.entries.reduce((top, entry) => (entry && dateOf(entry.register) > top ? dateOf(entry.register) : top), '');

export function keyOf(core: Core): DeviceKey {
  const key = core.store.cache.get('key') as DeviceKey | undefined;
  if (!key) throw new Refusal('unknown-device', 'this browser has lost its key');
  return key;
}

/** The lazy half of the fold: everything in the exchange is called after `complete`. */
export const ledgerOf = ({ fold }: Core): Ledger => fold.ledger as unknown as Ledger;

/** Own changes that must go (again), newest school day first. */
export function toFrame(core: Core): Entry[] {
  const { store } = core;
  const ledger = ledgerOf(core);
  const entries = new Map(ledger.unframed);
  for (const name of (store.cache.get('want') as string[] | undefined) || []) entries.set(name, ledger.entry(name)!);
  return Array.from(entries.values()).sort((a, b) => newestFirst(dateOf(a.register), dateOf(b.register)));
}

/**
 * Whether we may send a change again: others' are for their own devices to send. What was pulled may be this device's own all
 * the same, from before its log was restored.
 */
export function isOurs(core: Core, name: string): boolean {
  const { enrolment } = core.fold;
  const entry = ledgerOf(core).entry(name);
  if (!entry || !enrolment) return false;
  const { actor } = parseChange(entry.chunk);
  return entry.own || actor === actorOf(enrolment.device, unhex(actor.slice(0, 16)));
}

/** Frames that still need a receipt and can be sent by this device, newest school day first. */
export function sendable(core: Core): Outstanding[] {
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
export async function appendFrame(core: Core, entries: Entry[], ask: Ask | null): Promise<boolean> {
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
