/** What the tests share: a seeded source of randomness, and builders of changes. */
import { inflateRawSync } from 'node:zlib';
import { Refusal } from '../src/core/bytes';
import { Change, Draft, Inflate, Op, encodeChange } from '../src/core/change';
import { merge } from '../src/core/history';

/** xorshift32: the same numbers for the same seed, on every machine. */
export function seeded(seed: number): { int(below: number): number; pick<T>(items: readonly T[]): T; bytes(length: number): Uint8Array } {
  let state = (seed * 2654435761) >>> 0 || 1;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  for (let i = 0; i < 8; i++) next();
  const int = (below: number): number => next() % below;
  return { int, pick: (items) => items[int(items.length)], bytes: (length) => Uint8Array.from({ length }, () => int(256)) };
}

export type Random = ReturnType<typeof seeded>;

export const VALUES = ['P28800000', 'A28812345', 'E28815000:sick', 'L29100000:12', 'X-5', 'D0', 'S1:x_1', 'U86400000'];

/** One author's own copy of a register: what it has merged, and how it makes the next change. */
export class Author {
  readonly known = new Map<string, Change>();

  constructor(
    readonly actor: string,
    private readonly random: Random,
  ) {}

  take(others: Iterable<Change>): void {
    for (const change of others) this.known.set(change.hash, change);
  }

  /** A change with random puts, and deletes of the losers of a disagreement where there is one. */
  write(keys: readonly string[]): Change {
    const { random } = this;
    const history = merge(this.known.values());
    const visible = new Map(Array.from(history.visible, ([key, puts]) => [key, puts.map((put) => put.id)]));
    const startOp = history.maxOp + 1;
    const ops: Op[] = [];
    for (let left = 1 + random.int(6); left--; ) {
      const key = random.pick(keys);
      const ids = visible.get(key) ?? [];
      if (ids.length > 1 && random.int(3) === 0) {
        ops.push({ key, value: null, preds: ids.slice(0, -1) });
        visible.set(key, ids.slice(-1));
      } else {
        const value = key === '~bulk' ? 'B28800000' : random.pick(VALUES);
        ops.push({ key, value, preds: ids });
        visible.set(key, [[startOp + ops.length - 1, this.actor]]);
      }
    }
    const draft: Draft = {
      actor: this.actor, seq: (history.lastSeq.get(this.actor) ?? 0) + 1, startOp, timeS: random.int(2) * 1763625600, deps: history.heads, ops,
    };
    const change = encodeChange(draft);
    this.known.set(change.hash, change);
    return change;
  }
}

/** zlib as the port: bounded, and it tells trailing bytes. */
export const zlibInflate: Inflate = (packed, limit) => {
  try {
    const { buffer, engine } = inflateRawSync(packed, { maxOutputLength: limit + 1, info: true } as object) as unknown as {
      buffer: Buffer;
      engine: { bytesWritten: number };
    };
    if (buffer.length > limit) throw new Refusal('chunk-size', 'inflated');
    if (engine.bytesWritten !== packed.length) throw new Refusal('chunk-type', 'trailing');
    return new Uint8Array(buffer);
  } catch (cause) {
    if (cause instanceof Refusal) throw cause;
    throw new Refusal((cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE' ? 'chunk-size' : 'chunk-type');
  }
};
