/** Frames: what a device signs and sends; bundles: frames in a file (docs/protocol.md section 3). Pure. */
import { deflateSync } from 'fflate';
import { Refusal, concat, putU32, u32, utf8 } from './bytes';
import { equal, unhex } from './bytes-more';
import { chunkOf } from './change';
import { Value, pack, unpack } from './msgpack';

export const FRAME_BYTES_MAX = 16384;
export const CHANGES_MAX = 512;
export const SIGNATURE_BYTES = 64;
/** 2,000 short hashes: a school year of several classes, and a frame can still carry them. */
export const HAVE_BYTES_MAX = 16000;
const BUNDLE_MAGIC = utf8('HUDURB1\n');

export interface Clock {
  readonly wallMs: number;
  readonly monoMs: number;
  readonly session: Uint8Array;
  readonly beacon: readonly [number, number] | null;
}

export interface Ask {
  readonly nonce: Uint8Array | null;
  readonly cursor: Uint8Array | null;
  readonly have: Uint8Array | null;
  /** null: as last told. */
  readonly app: string | null;
  readonly unsent: number;
  readonly done: number;
}

export interface FramedChange {
  readonly register: string;
  readonly delegation: string | null;
  readonly chunk: Uint8Array;
}

export interface FrameDraft {
  readonly env: string;
  readonly school: string;
  readonly device: Uint8Array;
  readonly number: number;
  /** First 16 bytes of the hash of the frame before; null: unknown or none. */
  readonly prev: Uint8Array | null;
  readonly clock: Clock;
  readonly changes: readonly FramedChange[];
  readonly ask: Ask | null;
}

/** The bytes under a frame's signature. */
export function signedPart(draft: FrameDraft): Uint8Array {
  const { clock, ask } = draft;
  return pack([
    'hudur1',
    draft.env,
    draft.school,
    draft.device,
    draft.number,
    draft.prev || new Uint8Array(16),
    [clock.wallMs, clock.monoMs, clock.session, clock.beacon],
    draft.changes.map(({ register, delegation, chunk }) => [register, delegation, chunk]),
    ask && [ask.nonce, ask.cursor, ask.have, ask.app, ask.unsent, ask.done],
  ]);
}

/** What a frame of ours asks, as it is on the wire, or null. */
const askOf = (frame: Uint8Array): Value[] | null => (unpack(frame.subarray(0, -SIGNATURE_BYTES)) as Value[])[8] as Value[] | null;

/** The nonce under which a frame of ours asks, or undefined when it does not ask. */
export function nonceOf(frame: Uint8Array): Uint8Array | null | undefined {
  const ask = askOf(frame);
  return ask ? (ask[0] as Uint8Array | null) : undefined;
}

/** The app version a frame of ours tells, or null. */
export function appOf(frame: Uint8Array): Value {
  const ask = askOf(frame);
  return ask && ask[3];
}

/** The wire form of a plain chunk: deflated (type 2) when that is smaller. */
export function deflate(chunk: Uint8Array, hash: string): Uint8Array {
  let at = 9;
  while (chunk[at++] > 127);
  const packed = chunkOf(2, deflateSync(chunk.subarray(at), { level: 9 }), unhex(hash.slice(0, 8)));
  return packed.length < chunk.length ? packed : chunk;
}

export function writeBundle(frames: readonly Uint8Array[]): Uint8Array {
  const parts = [BUNDLE_MAGIC];
  for (const frame of frames) {
    const length = new Uint8Array(4);
    putU32(length, 0, frame.length);
    parts.push(length, frame);
  }
  return concat(parts);
}

export const isBundle = (file: Uint8Array): boolean => equal(file.subarray(0, 8), BUNDLE_MAGIC);

/** The whole frames of a file, and whether it was cut short. Throws {@link Refusal} `not-an-export` or `frame-limits`. */
export function readBundle(file: Uint8Array): { frames: Uint8Array[]; truncated: boolean } {
  if (!isBundle(file)) throw new Refusal('not-an-export');
  const frames: Uint8Array[] = [];
  let at = 8;
  while (at + 4 <= file.length) {
    const length = u32(file, at);
    const end = at + 4 + length;
    if (!length || length > FRAME_BYTES_MAX) throw new Refusal('frame-limits', length + ' bytes');
    if (end > file.length) break;
    frames.push(file.subarray(at + 4, end));
    at = end;
  }
  return { frames, truncated: at !== file.length };
}
