"""Hunt saboteurs: for each a process of its own runs seed after seed until the simulator notices something.

Rules of the hunt:
  1. A seed counts as a find only if the control, the same seed without any saboteur, passes. Otherwise the hunt goes on
     behind it.
  2. A find is a violation the simulator reports, an exception that escapes it, or a seed that does not end.
  3. Every process has `PYTHONHASHSEED=0`, so a hunt gives the same seed each time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from tests.simulator.saboteurs.model import ROOT, Saboteur

ENTRY = "tests.simulator.run:simulate"
CPU_S = 120  # per seed; an ordinary one takes a second or two
_CONTROL = "-"


class VictimDied(Exception):
    """A process of the hunt ended in a way that says nothing about the saboteur: it could not even begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one seed showed. `kind`: None (nothing), `violation`, `crash` or `stuck`."""

    seed: int
    kind: str | None
    invariant: str | None
    detail: str
    seconds: float
    digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Catch:
    """How the hunt for one saboteur ended.

    Attributes:
        seen: What found it; None when no seed did.
        seeds: Seeds run up to the find, or all.
        seconds: Processor time of those seeds.
        unlike: Seeds whose trace differs from the control's (as far as both ran): 0 with many seeds run means that
            the line was never reached or changes nothing.
    """

    saboteur: Saboteur
    seen: Seen | None
    seeds: int
    seconds: float
    unlike: int = 0


@dataclass(slots=True)
class Control:
    """The same seeds without a saboteur, each run once."""

    entry: str
    cpu_s: int
    seen: dict[int, Seen] = field(default_factory=dict)

    def run(self, seeds: Iterable[int], *, jobs: int) -> None:
        """Make sure that these seeds are known."""
        spans = list(_spans(sorted(set(seeds) - self.seen.keys()), jobs))
        with ThreadPoolExecutor(jobs) as pool:
            for found in pool.map(self._run_span, spans):
                self.seen |= {seen.seed: seen for seen in found}

    def _run_span(self, span: tuple[int, int]) -> list[Seen]:
        return run_victim(_CONTROL, self.entry, span[0], span[1], self.cpu_s)

    def passes(self, seed: int) -> bool:
        """Whether the simulator finds nothing in this seed by itself."""
        return self.seen[seed].kind is None

    @property
    def failures(self) -> list[Seen]:
        """Seeds in which the simulator finds something without any saboteur."""
        return [seen for _, seen in sorted(self.seen.items()) if seen.kind is not None]


def hunt(
    saboteurs: Sequence[Saboteur],
    control: Control,
    *,
    seeds: int,
    jobs: int,
    tell: Callable[[Catch], None] = lambda _: None,
) -> list[Catch]:
    """Hunt each of `saboteurs` in at most `seeds` seeds; results in their order."""
    catches = {saboteur.name: Catch(saboteur=saboteur, seen=None, seeds=0, seconds=0.0) for saboteur in saboteurs}
    digests: dict[str, dict[int, str | None]] = {saboteur.name: {} for saboteur in saboteurs}
    open_ones = list(saboteurs)
    while open_ones:
        with ThreadPoolExecutor(jobs) as pool:
            runs = pool.map(
                lambda one: run_victim(one.name, control.entry, catches[one.name].seeds + 1, seeds, control.cpu_s),
                open_ones,
            )
            for saboteur, found in zip(open_ones, runs, strict=True):
                catches[saboteur.name] = _with(catches[saboteur.name], found)
                digests[saboteur.name] |= {seen.seed: seen.digest for seen in found}
                last = catches[saboteur.name].seen
                if last is not None:
                    control.run([last.seed], jobs=1)
                    if not control.passes(last.seed):
                        catches[saboteur.name] = replace(catches[saboteur.name], seen=None)
                        continue
                tell(catches[saboteur.name])
        open_ones = [one for one in open_ones if catches[one.name].seen is None and 0 < catches[one.name].seeds < seeds]
    return [replace(catch, unlike=_unlike(digests[name], control)) for name, catch in catches.items()]


def _with(catch: Catch, found: Sequence[Seen]) -> Catch:
    last = found[-1]
    return replace(
        catch,
        seen=last if last.kind is not None else None,
        seeds=last.seed,
        seconds=catch.seconds + sum(seen.seconds for seen in found),
    )


def _unlike(digests: dict[int, str | None], control: Control) -> int:
    known = [seed for seed in digests if seed in control.seen]
    return sum(digests[seed] != control.seen[seed].digest for seed in known)


def _spans(seeds: Sequence[int], jobs: int) -> Iterable[tuple[int, int]]:
    """Runs of neighbouring seeds, long ones in as many parts as there are jobs."""
    start = 0
    for at in range(1, len(seeds) + 1):
        if at == len(seeds) or seeds[at] != seeds[at - 1] + 1:
            size = -(-(at - start) // jobs)
            for low in range(start, at, size):
                yield seeds[low], seeds[min(low + size, at) - 1]
            start = at


def run_victim(name: str, entry: str, first: int, last: int, cpu_s: int) -> list[Seen]:
    """One process (`victim`) over some seeds; the last of the list is the one that ended it, if any did.

    Raises:
        VictimDied: when it did not come as far as its first seed.
    """
    found: list[Seen] = []
    while True:
        more, stuck = _one_life(name, entry, first, last, cpu_s)
        found += more
        if stuck is None:
            return found
        found.append(stuck)
        if name != _CONTROL or stuck.seed == last:
            return found
        first = stuck.seed + 1


def _one_life(name: str, entry: str, first: int, last: int, cpu_s: int) -> tuple[list[Seen], Seen | None]:
    """What a process told before it ended, and the seed in which it got stuck or died."""
    command = [sys.executable, "-m", "tests.simulator.saboteurs.victim", name, entry, str(first), str(last), str(cpu_s)]
    with tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdout=subprocess.PIPE,
            stderr=errors,
            check=False,
        )
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace")[-2_000:]
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    if not lines:
        raise VictimDied(f"{name}: exit {done.returncode}: {said}")
    seen = [Seen(**line) for line in lines if "seed" in line]
    if done.returncode == 0:
        return seen, None
    how = "does not end" if done.returncode == -signal.SIGXCPU else f"the process died, exit {done.returncode}: {said}"
    return seen, Seen(
        seed=lines[-1].get("at", first), kind="stuck", invariant=None, detail=how, seconds=float(cpu_s), digest=None
    )
