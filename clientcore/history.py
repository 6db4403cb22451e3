"""All changes of one register, merged: every mark ever made, what is visible, what disagrees. Pure.

Invariants:
  1. The result depends on the *set* of changes only, never on their order or on duplicates.
  2. A change is merged only when everything it depends on is merged, and only when it is consistent with it
     (docs/protocol.md, stateful rules). Others are named in `pending`, `inconsistent` or `equivocations`, never lost.
  3. The winner of a key is the visible put with the greatest (counter, actor): Automerge's own rule, so both Automerge
     cores and this module always agree (property-tested).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clientcore.change import Change, OpId


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """One mark ever made: value `value` at `key`, by operation `id` of change `change_hash`."""

    id: OpId
    key: str
    value: str
    change_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The merged state of one register.

    Attributes:
        merged: Merged changes by hash, in a causal order that depends on the set only.
        pending: Hashes of changes whose dependencies have not come yet.
        inconsistent: Hash to reason, for changes that contradict their own dependencies.
        equivocations: Hashes of changes whose (actor, seq) a merged change with a smaller hash already uses.
        heads: Hashes no merged change depends on, ascending.
    """

    merged: Mapping[bytes, Change]
    pending: frozenset[bytes]
    inconsistent: Mapping[bytes, str]
    equivocations: frozenset[bytes]
    heads: tuple[bytes, ...]

    def puts(self) -> list[Put]:
        """Every mark ever made, in order of (counter, actor)."""
        found = [
            Put(id=(change.start_op + i, change.actor), key=op.key, value=op.value, change_hash=digest)
            for digest, change in self.merged.items()
            for i, op in enumerate(change.ops)
            if op.value is not None
        ]
        return sorted(found, key=lambda put: put.id)

    def visible(self) -> dict[str, list[Put]]:
        """Visible marks per key, the winner last; more than one means that authors disagree.

        What is visible when some changes do not count: `reconciliation.conflicts.visible_puts`.
        """
        superseded = {pred for change in self.merged.values() for op in change.ops for pred in op.preds}
        result: dict[str, list[Put]] = {}
        for put in self.puts():
            if put.id not in superseded:
                result.setdefault(put.key, []).append(put)
        return result

    @property
    def max_op(self) -> int:
        """Greatest operation counter merged; 0 for an empty register."""
        return max((change.max_op for change in self.merged.values()), default=0)

    def last_seq(self, actor: bytes) -> int:
        """The last merged change number of `actor`; 0 if it has none."""
        return max((change.seq for change in self.merged.values() if change.actor == actor), default=0)


EMPTY = History(merged={}, pending=frozenset(), inconsistent={}, equivocations=frozenset(), heads=())


def merge(changes: Iterable[Change]) -> History:
    """Merge a set of parsed changes of one register. Duplicates count once; any order gives the same history."""
    merger = _Merger({change.hash: change for change in changes})
    merger.run()
    return merger.history()


@dataclass(slots=True)
class _Merger:
    """Kahn's walk over the dependency graph, smallest hash first among the ready, so that the order is canonical."""

    known: dict[bytes, Change]
    merged: dict[bytes, Change] = field(default_factory=dict)
    inconsistent: dict[bytes, str] = field(default_factory=dict)
    equivocations: set[bytes] = field(default_factory=set)
    bit: dict[bytes, int] = field(default_factory=dict)  # hash -> its place in `merged`, as a power of two
    past: dict[bytes, int] = field(default_factory=dict)  # hash -> bits of everything it depends on, near or far
    puts: dict[OpId, tuple[str, int]] = field(default_factory=dict)  # put id -> (key, bit of its change)
    puts_of: dict[str, list[OpId]] = field(default_factory=dict)  # key -> its puts
    over: dict[OpId, int] = field(default_factory=dict)  # put id -> bits of the changes that supersede it
    last: dict[bytes, bytes] = field(default_factory=dict)  # actor -> hash of its last merged change

    def run(self) -> None:
        self._set_equivocations_aside()
        waiting = {h: len(set(c.deps)) for h, c in self.known.items() if h not in self.equivocations}
        dependants: dict[bytes, list[bytes]] = {}
        for digest in waiting:
            for dep in self.known[digest].deps:
                dependants.setdefault(dep, []).append(digest)
        ready = [digest for digest, count in waiting.items() if count == 0]
        heapq.heapify(ready)
        while ready:
            digest = heapq.heappop(ready)
            if not self._take(digest):
                continue
            for dependant in dependants.get(digest, ()):
                waiting[dependant] -= 1
                if waiting[dependant] == 0:
                    heapq.heappush(ready, dependant)

    def _set_equivocations_aside(self) -> None:
        first: dict[tuple[bytes, int], bytes] = {}
        for digest in sorted(self.known):
            change = self.known[digest]
            if first.setdefault((change.actor, change.seq), digest) != digest:
                self.equivocations.add(digest)

    def _take(self, digest: bytes) -> bool:
        change = self.known[digest]
        past = 0
        for dep in change.deps:
            past |= self.past[dep] | self.bit[dep]
        problem = self._problem(change, past)
        if problem is not None:
            self.inconsistent[digest] = problem
            return False
        bit = 1 << len(self.merged)
        self.merged[digest], self.bit[digest], self.past[digest] = change, bit, past
        self.last[change.actor] = digest
        for i, op in enumerate(change.ops):
            for pred in op.preds:
                self.over[pred] = self.over.get(pred, 0) | bit
            if op.value is not None:
                name = (change.start_op + i, change.actor)
                self.puts[name] = (op.key, bit)
                self.puts_of.setdefault(op.key, []).append(name)
        return True

    def _problem(self, change: Change, past: int) -> str | None:
        previous = self.last.get(change.actor)
        expected_seq = self.merged[previous].seq + 1 if previous is not None else 1
        if change.seq != expected_seq:
            return "seq"
        if previous is not None and not past & self.bit[previous]:
            return "own previous change not in its past"
        if change.start_op != 1 + max((self.merged[dep].max_op for dep in change.deps), default=0):
            return "start_op"
        return self._pred_problem(change, past)

    def _pred_problem(self, change: Change, past: int) -> str | None:
        own: dict[OpId, str] = {}
        gone: set[OpId] = set()
        seen: dict[str, set[OpId]] = {}  # key -> what its author saw of it; looked up once a key, not once a delete
        for i, op in enumerate(change.ops):
            for pred in op.preds:
                found = self.puts.get(pred)
                key = own.get(pred) if found is None or not found[1] & past else found[0]
                if key != op.key:
                    return "predecessor unknown"
            gone.update(op.preds)
            if op.value is not None:
                own[change.start_op + i, change.actor] = op.key
                continue
            if op.key not in seen:
                seen[op.key] = self._visible_in(past, op.key)
            if seen[op.key] <= gone and all(name in gone for name, key in own.items() if key == op.key):
                return "delete erases the mark"
        return None

    def _visible_in(self, past: int, key: str) -> set[OpId]:
        """Puts of `key` in the past that nothing in the past supersedes."""
        return {
            name
            for name in self.puts_of.get(key, ())
            if self.puts[name][1] & past and not self.over.get(name, 0) & past
        }

    def history(self) -> History:
        depended = {dep for change in self.merged.values() for dep in change.deps}
        refused = self.inconsistent.keys() | self.equivocations
        return History(
            merged=self.merged,
            pending=frozenset(self.known.keys() - self.merged.keys() - refused),
            inconsistent=self.inconsistent,
            equivocations=frozenset(self.equivocations),
            heads=tuple(sorted(self.merged.keys() - depended)),
        )
