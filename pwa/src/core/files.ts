/** Work in files: bundles out, bundles and other phones' logs in. */
import { Refusal, hex, u32 } from './bytes';
import { ring } from './calls';
import type { Core } from './device';
import { FRAME_BYTES_MAX, SIGNATURE_BYTES, isBundle, readBundle, writeBundle } from './frame';
import { frameHash } from './ledger';
import { Value, unpack } from './msgpack';
import { frameAll, ledgerOf } from './outbox';
import { cells, readRecord, readTable } from './pages';

const BUNDLE_BYTES_MAX = 1000000;
const FILE_PAGES_MAX = 65536;

/** Every frame without a receipt, pending work sealed and framed first. Frames of an earlier key of this phone too. */
export async function exportBundle(core: Core): Promise<Uint8Array> {
  await frameAll(core);
  return writeBundle(
    Array.from(ledgerOf(core).outstanding.values())
      .filter((frame) => frame.entries.length)
      .map((frame) => frame.bytes),
  );
}

/**
 * Hand in another phone's work: a bundle, or the frames of its log file that have no receipt there. Several calls when the
 * file is large; the results are added up.
 */
export async function importFile(core: Core, file: Uint8Array): Promise<Value> {
  const frames = isBundle(file) ? null : framesOfLog(file);
  if (!frames && file.length <= BUNDLE_BYTES_MAX) return (await ring(core, '/v1/bundles', 'bundle', [file])).result;
  const all = frames ? { frames, truncated: false } : readBundle(file);
  let total: Value[] | null = null;
  for (let at = 0; at < all.frames.length || !total; ) {
    const part: Uint8Array[] = [];
    for (let bytes = 0; at < all.frames.length && bytes + all.frames[at].length < BUNDLE_BYTES_MAX; at++) {
      part.push(all.frames[at]);
      bytes += all.frames[at].length + 4;
    }
    total = added(total, (await ring(core, '/v1/bundles', 'bundle', [writeBundle(part)])).result as Value[]);
  }
  total[5] = total[5] || all.truncated;
  return total;
}

/** Sum of two bundle results: numbers are added, truth is kept, lists are joined. */
const added = (sum: Value[] | null, next: Value[]): Value[] =>
  sum
    ? sum.map((a, i) => {
        const b = next[i];
        return typeof a === 'number' ? a + (b as number) : typeof a === 'boolean' ? a || (b as boolean) : (a as Value[]).concat(b as Value[]);
      })
    : next.slice();

/** Frames of another phone's log. The file is hostile until proved otherwise: the readers are bounded, nothing is trusted. */
export function framesOfLog(file: Uint8Array): Uint8Array[] {
  const frames = new Map<string, Uint8Array>();
  const answered = new Set<string>();
  for (const { kind, body } of rowsOfFile(file)) {
    if (kind !== 'frame' && kind !== 'receipt') continue;
    try {
      const [, , last] = unpack(body) as Value[];
      if (kind === 'receipt') for (const hash of last as Uint8Array[]) answered.add(hex(hash));
      else {
        const frame = last as Uint8Array;
        if (frame.length > SIGNATURE_BYTES && frame.length <= FRAME_BYTES_MAX) frames.set(hex(frameHash(frame)), frame);
      }
    } catch (cause) {
      if (!(cause instanceof Refusal || cause instanceof TypeError)) throw cause; // one bad row hides no other
    }
  }
  const all = Array.from(frames);
  const open = all.filter(([hash]) => !answered.has(hash));
  return (open.length ? open : all).map(([, frame]) => frame); // nothing open: the server's "duplicate" is the proof
}

/** Rows of the table `log` in a SQLite file of any page size. */
export function rowsOfFile(file: Uint8Array): ReturnType<typeof readTable> {
  const magic = Array.from('SQLite format 3\0').every((char, i) => file[i] === char.charCodeAt(0));
  if (!magic) throw new Refusal('not-an-export', 'neither a bundle nor a log');
  const declared = (file[16] << 8) | file[17];
  const size = declared === 1 ? 65536 : declared;
  if (size < 512 || size & (size - 1) || u32(file, 56) !== 1) throw new Refusal('not-an-export', 'header');
  const count = Math.min(Math.floor(file.length / size), FILE_PAGES_MAX);
  const page = (no: number): Uint8Array | undefined => (no >= 1 && no <= count ? file.subarray((no - 1) * size, no * size) : undefined);
  const usable = size - file[20];
  for (const [, payload] of cells(page, usable, 1)) {
    const [type, name, , root] = readRecord(payload);
    if (type === 'table' && name === 'log' && typeof root === 'number') return readTable(page, usable, root);
  }
  throw new Refusal('not-an-export', 'no log in it');
}
