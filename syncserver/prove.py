"""The proof: every register merged once more by an independent implementation, and compared (`hudur prove`).

Our own history is what the road runs on; the `automerge` package is the second opinion. It runs in a child with limits
on memory and CPU (`prove_worker.py`): a core that aborts or hangs on a register is a finding about that register, and
the proof of the others goes on. `export_automerge` writes a register as a document that any Automerge tool opens.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from clientcore.change import Change, parse
from clientcore.errors import BadInput, ChangeRefused
from clientcore.history import History, merge

REGISTERS_PER_CHILD = 200
"""Starting a child costs about 60 ms, a register of ten changes about 0.1 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one child may use for up to 200 registers.

    Attributes:
        memory_bytes: Address space. A day's register needs less than 1 MB over the interpreter's own 150 MB.
        cpu_s: Seconds of CPU.
        wall_s: Seconds until a child that waits for nothing is ended.
    """

    memory_bytes: int = 1 << 30
    cpu_s: int = 20
    wall_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A register on which the two implementations do not agree.

    Attributes:
        register: Its id.
        what: `unreadable` (a stored change our own parser refuses), `core` (the core failed or was killed), `heads` or
            `winners`.
        detail: Which changes or keys, and what each side says.
    """

    register: str
    what: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofReport:
    """What was proved.

    Attributes:
        registers: Registers compared.
        changes: Changes in them that are merged, and were merged again by the core.
        set_aside: Changes that our own merge leaves out (pending, inconsistent, equivocations): not compared.
        differences: None when everything agrees.
    """

    registers: int
    changes: int
    set_aside: int
    differences: tuple[Difference, ...]

    @property
    def agrees(self) -> bool:
        """Whether both implementations agree on every register."""
        return not self.differences


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """Our side of one register."""

    register: str
    history: History
    unreadable: tuple[Difference, ...]


def prove(
    registers: Iterable[tuple[str, Sequence[bytes]]],
    *,
    limits: Limits | None = None,
    our_merge: Callable[[Iterable[Change]], History] = merge,
) -> ProofReport:
    """Merge every register by both implementations and compare heads and winning values.

    Args:
        registers: (register id, all its stored chunks, in any order); read in batches, so it may be a long stream.
        limits: What each child may use.
        our_merge: Our side; another one shows that a wrong merge would be found.

    Raises:
        BadInput: `no-core`, when the child cannot run at all.
    """
    differences: list[Difference] = []
    count = changes = set_aside = 0
    stream = iter(registers)
    while batch := list(islice(stream, REGISTERS_PER_CHILD)):
        sides = [_our_side(register, chunks, our_merge) for register, chunks in batch]
        states = core_states([_merged_chunks(side.history) for side in sides], limits or Limits())
        for side, state in zip(sides, states, strict=True):
            history = side.history
            differences += [*side.unreadable, *_compare(side.register, history, state)]
            changes += len(history.merged)
            set_aside += len(history.pending) + len(history.inconsistent) + len(history.equivocations)
        count += len(batch)
    return ProofReport(registers=count, changes=changes, set_aside=set_aside, differences=tuple(differences))


def export_automerge(chunks: Sequence[bytes], *, limits: Limits | None = None) -> bytes:
    """The merged changes of one register as an Automerge document (what is set aside by our merge is not in it).

    Raises:
        ChangeRefused: when a chunk is outside the profile.
        BadInput: `not-exportable`, when the core fails or makes something else of it than we do; `no-core`.
    """
    history = merge(parse(chunk) for chunk in chunks)
    (state,) = core_states([_merged_chunks(history)], limits or Limits(), save=True)
    wrong = _compare("", history, state)
    if wrong:
        raise BadInput("not-exportable", f"{wrong[0].what}: {wrong[0].detail}")
    return bytes.fromhex(state["saved"])


def core_states(sets: Sequence[Sequence[bytes]], limits: Limits, *, save: bool = False) -> list[dict[str, Any]]:
    """What the native core makes of each set of chunks: `heads`, `values` (and `saved`), or `error`.

    A set on which the child dies is tried once more in a child of its own, then reported as an error; the sets behind
    it get another child.

    Raises:
        BadInput: `no-core`, when the child dies before it reads anything.
    """
    states: list[dict[str, Any]] = []
    while len(states) < len(sets):
        found, death = _ask_child(sets[len(states) :], limits, save)
        states += found
        if len(states) < len(sets):
            culprit = sets[len(states) : len(states) + 1]
            again, death = _ask_child(culprit, limits, save)
            states += again or [{"error": f"the core {death}"}]
    return states


def _ask_child(sets: Sequence[Sequence[bytes]], limits: Limits, save: bool) -> tuple[list[dict[str, Any]], str]:
    """Answers for as many sets as the child lived through, and how it ended."""
    asked = json.dumps({"sets": [[chunk.hex() for chunk in chunks] for chunks in sets], "save": save})
    command = [sys.executable, "-m", "syncserver.prove_worker", str(limits.memory_bytes), str(limits.cpu_s)]
    try:
        child = subprocess.run(command, input=asked.encode(), capture_output=True, timeout=limits.wall_s, check=False)
        output, words, death = child.stdout, child.stderr, _death(child.returncode)
    except subprocess.TimeoutExpired as expired:
        output, words, death = expired.output or b"", expired.stderr or b"", "took too long"
    lines = output.split(b"\n")
    if lines[0] != b"ready":
        last_words = words.decode(errors="replace")[-500:]
        raise BadInput("no-core", f"the automerge package cannot be run ({death}): {last_words}")
    whole = lines[1:-1]  # what follows the last newline was cut off
    return [json.loads(line) for line in whole], death


def _death(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _our_side(register: str, chunks: Sequence[bytes], our_merge: Callable[[Iterable[Change]], History]) -> _Side:
    changes: list[Change] = []
    unreadable: list[Difference] = []
    for chunk in chunks:
        try:
            changes.append(parse(chunk))
        except ChangeRefused as refusal:
            detail = f"{chunk[:8].hex()}… ({len(chunk)} bytes): {refusal}"
            unreadable.append(Difference(register=register, what="unreadable", detail=detail))
    return _Side(register=register, history=our_merge(changes), unreadable=tuple(unreadable))


def _merged_chunks(history: History) -> list[bytes]:
    return [change.chunk for change in history.merged.values()]


def _compare(register: str, history: History, state: dict[str, Any]) -> list[Difference]:
    if "error" in state:
        return [Difference(register=register, what="core", detail=state["error"])]
    found: list[Difference] = []
    heads = [head.hex() for head in history.heads]
    if heads != state["heads"]:
        found.append(Difference(register=register, what="heads", detail=f"ours {heads}, core {state['heads']}"))
    winners = {key: puts[-1].value for key, puts in history.visible().items()}
    if winners != state["values"]:
        detail = "; ".join(
            f"{key}: ours {winners.get(key)}, core {state['values'].get(key)}"
            for key in sorted(winners.keys() | state["values"].keys())
            if winners.get(key) != state["values"].get(key)
        )
        found.append(Difference(register=register, what="winners", detail=detail))
    return found
