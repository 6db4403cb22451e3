/**
 * All changes of one register, merged: what is visible, what disagrees, what must wait. Twin of `clientcore/history.py`.
 *
 * The result depends on the set of changes only, never on their order: the walk takes the smallest hash among those whose
 * dependencies are merged. Changes that cannot be merged are named, never lost.
 */
import { Change, DEPS_MAX, OpId, compareIds } from './change';

/** One visible mark: operation `id` put `value`. */
export interface Put {
  readonly id: OpId;
  readonly value: string;
}

export interface History {
  /** Merged changes by hash. */
  readonly merged: ReadonlyMap<string, Change>;
  /** Hashes whose dependencies have not come yet. */
  readonly pending: readonly string[];
  /** Hash to reason, for changes that contradict their own dependencies. */
  readonly inconsistent: ReadonlyMap<string, string>;
  /** Hashes whose (actor, seq) another change with a smaller hash uses. */
  readonly equivocations: readonly string[];
  /** Hashes no merged change depends on, ascending. */
  readonly heads: readonly string[];
  readonly maxOp: number;
  /** Visible marks per key, the winner last; more than one means that authors disagree. */
  readonly visible: ReadonlyMap<string, readonly Put[]>;
  /** Last merged change number per actor. */
  readonly lastSeq: ReadonlyMap<string, number>;
}

interface Named extends Put {
  readonly key: string;
  readonly hash: string;
}

const nameOf = (id: OpId): string => id[0] + '@' + id[1];
const maxOpOf = (change: Change): number => change.startOp + change.ops.length - 1;

/** Merge a set of parsed changes of one register. */
export function merge(changes: Iterable<Change>): History {
  const known = new Map<string, Change>();
  for (const change of changes) known.set(change.hash, change);
  const merged = new Map<string, Change>();
  const past = new Map<string, Set<string>>();
  const puts = new Map<string, Named>();
  const last = new Map<string, Change>();
  const inconsistent = new Map<string, string>();
  const equivocations: string[] = [];
  const heads = new Set<string>();
  const superseded = new Set<string>();
  let maxOp = 0;

  const problemOf = (change: Change, before: Set<string>): string | null => {
    const previous = last.get(change.actor);
    if (change.seq !== (previous ? previous.seq : 0) + 1) return 'seq';
    if (previous && !before.has(previous.hash)) return 'own previous change not in its past';
    let top = 0;
    for (const dep of change.deps) top = Math.max(top, maxOpOf(merged.get(dep)!));
    if (change.startOp !== top + 1) return 'start_op';
    const own = new Map<string, string>();
    const gone = new Set<string>();
    for (let i = 0; i < change.ops.length; i++) {
      const op = change.ops[i];
      for (const pred of op.preds) {
        const name = nameOf(pred);
        const found = puts.get(name);
        if ((found && before.has(found.hash) ? found.key : own.get(name)) !== op.key) return 'predecessor unknown';
        gone.add(name);
      }
      if (op.value !== null) own.set(nameOf([change.startOp + i, change.actor]), op.key);
      else if (erases(op.key, before, own, gone)) return 'delete erases the mark';
    }
    return null;
  };

  /** Whether nothing stays visible at `key` to an author who has seen `before` and did `own` and `gone`. */
  const erases = (key: string, before: Set<string>, own: Map<string, string>, gone: Set<string>): boolean => {
    const over = new Set(gone);
    before.forEach((hash) => merged.get(hash)!.ops.forEach((op) => op.preds.forEach((pred) => over.add(nameOf(pred)))));
    let left = false;
    puts.forEach((put, name) => {
      if (put.key === key && before.has(put.hash) && !over.has(name)) left = true;
    });
    own.forEach((ownKey, name) => {
      if (ownKey === key && !over.has(name)) left = true;
    });
    return !left;
  };

  const take = (change: Change): void => {
    const before = new Set(change.deps);
    for (const dep of change.deps) past.get(dep)!.forEach((hash) => before.add(hash));
    const problem = problemOf(change, before);
    if (problem) {
      inconsistent.set(change.hash, problem);
      return;
    }
    merged.set(change.hash, change);
    past.set(change.hash, before);
    last.set(change.actor, change);
    for (const dep of change.deps) heads.delete(dep);
    heads.add(change.hash);
    maxOp = Math.max(maxOp, maxOpOf(change));
    change.ops.forEach((op, i) => {
      const id: OpId = [change.startOp + i, change.actor];
      op.preds.forEach((pred) => superseded.add(nameOf(pred)));
      if (op.value !== null) puts.set(nameOf(id), { id, value: op.value, key: op.key, hash: change.hash });
    });
  };

  const first = new Set<string>();
  let waiting = Array.from(known.keys()).sort().filter((hash) => {
    const change = known.get(hash)!;
    const slot = change.seq + '@' + change.actor;
    if (first.has(slot)) equivocations.push(hash);
    else if (first.add(slot)) return true;
    return false;
  });
  for (;;) {
    const at = waiting.findIndex((hash) => known.get(hash)!.deps.every((dep) => merged.has(dep)));
    if (at < 0) break;
    take(known.get(waiting.splice(at, 1)[0])!);
  }

  const visible = new Map<string, Put[]>();
  Array.from(puts.values())
    .sort((a, b) => compareIds(a.id, b.id))
    .forEach((put) => {
      if (superseded.has(nameOf(put.id))) return;
      const shown = visible.get(put.key);
      if (shown) shown.push(put);
      else visible.set(put.key, [put]);
    });
  const lastSeq = new Map<string, number>();
  last.forEach((change, actor) => lastSeq.set(actor, change.seq));
  return { merged, pending: waiting, inconsistent, equivocations, heads: Array.from(heads).sort(), maxOp, visible, lastSeq };
}

/** What a new change of `actor` builds on. */
export interface Frontier {
  readonly deps: readonly string[];
  readonly maxOp: number;
  readonly visible: History['visible'];
  /** The actor's last change number. */
  readonly seq: number;
}

/**
 * The heads a new change depends on, and what its author has then seen.
 *
 * A change names at most 32 heads. Where more stand (33 phones wrote at once, or somebody made it so), it builds on the
 * part of the history below 32 of them, the author's own changes first, so that a crowd can never stop a teacher.
 */
export function frontier(history: History, actor: string): Frontier {
  const seq = history.lastSeq.get(actor) || 0;
  if (history.heads.length <= DEPS_MAX) return { deps: history.heads, maxOp: history.maxOp, visible: history.visible, seq };
  const below = (hash: string, seen: Set<string>): Set<string> => {
    if (!seen.has(hash)) history.merged.get(seen.add(hash) && hash)!.deps.forEach((dep) => below(dep, seen));
    return seen;
  };
  const mine = (hash: string): number => Array.from(below(hash, new Set())).filter((h) => history.merged.get(h)!.actor === actor).length;
  const deps = history.heads.slice().sort((a, b) => mine(b) - mine(a)).slice(0, DEPS_MAX).sort();
  const seen = new Set<string>();
  deps.forEach((hash) => below(hash, seen));
  const part = merge(Array.from(seen).map((hash) => history.merged.get(hash)!));
  return { deps, maxOp: part.maxOp, visible: part.visible, seq };
}
