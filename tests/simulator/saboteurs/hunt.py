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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from types import MappingProxyType
from typing import Any

from tests.simulator.saboteurs.model import ROOT, Saboteur
from tests.simulator.saboteurs.victim import CONTROL, write_seeds

ENTRY = "tests.simulator.saboteurs.worlds:simulate"
CPU_S = 120  # per seed; an ordinary one takes a second or two


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
        seeds: Number of seeds run up to the find, or in all; those in which the control fails are left out.
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
    _one_at_a_time: Lock = field(default_factory=Lock)

    def run(self, seeds: Iterable[int], *, jobs: int) -> None:
        """Make sure that these seeds are known."""
        with self._one_at_a_time, ThreadPoolExecutor(jobs) as pool:
            unknown = sorted(set(seeds) - self.seen.keys())
            for found in pool.map(self._run_some, [unknown[at::jobs] for at in range(jobs) if unknown[at::jobs]]):
                self.seen |= {seen.seed: seen for seen in found}

    def _run_some(self, seeds: Sequence[int]) -> list[Seen]:
        return run_victim(CONTROL, self.entry, seeds, self.cpu_s)

    def fails(self, seed: int) -> bool:
        """Whether the simulator is known to find something in this seed by itself."""
        return seed in self.seen and self.seen[seed].kind is not None

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
    known: Mapping[str, int] = MappingProxyType({}),
) -> list[Catch]:
    """Hunt each of `saboteurs` in at most `seeds` seeds; results in their order.

    Args:
        saboteurs: Whom.
        control: The same seeds without them.
        seeds: How many, from 1.
        jobs: Processes at once.
        tell: Told of each as soon as its hunt ends.
        known: Seeds in which some were found before: those are tried first.
    """
    with ThreadPoolExecutor(jobs) as pool:

        def one(saboteur: Saboteur) -> Catch:
            catch = _hunt_one(saboteur, control, seeds, known.get(saboteur.name))
            tell(catch)
            return catch

        return list(pool.map(one, saboteurs))


def _hunt_one(saboteur: Saboteur, control: Control, seeds: int, first: int | None) -> Catch:
    tried: list[Seen] = []
    if first is not None:
        tried = run_victim(saboteur.name, control.entry, [first], control.cpu_s)
        control.run([first], jobs=1)
        if tried[0].kind is not None and not control.fails(first):
            return _catch(saboteur, control, tried, tried[0])
    left = [seed for seed in range(1, seeds + 1) if seed != first]
    while left := [seed for seed in left if not control.fails(seed)]:
        found = run_victim(saboteur.name, control.entry, left, control.cpu_s)
        last = found[-1]
        if last.kind is not None:
            control.run([last.seed], jobs=1)
            if control.fails(last.seed):
                tried += found[:-1]
                left = [seed for seed in left if seed > last.seed]
                continue
        return _catch(saboteur, control, [*tried, *found], last if last.kind is not None else None)
    return _catch(saboteur, control, tried, None)


def _catch(saboteur: Saboteur, control: Control, tried: Sequence[Seen], seen: Seen | None) -> Catch:
    known = [one for one in tried if one.seed in control.seen]
    return Catch(
        saboteur=saboteur,
        seen=seen,
        seeds=len(tried),
        seconds=sum(one.seconds for one in tried),
        unlike=sum(one.digest != control.seen[one.seed].digest for one in known),
    )


def run_victim(name: str, entry: str, seeds: Sequence[int], cpu_s: int) -> list[Seen]:
    """One process (`victim`) over some seeds; the last of the list is the one that ended it, if any did.

    Raises:
        VictimDied: when it did not come as far as its first seed.
    """
    found: list[Seen] = []
    while True:
        more, stuck = _one_life(name, entry, write_seeds(seeds), cpu_s)
        found += more
        if stuck is None:
            return found
        found.append(stuck)
        seeds = [seed for seed in seeds if seed > stuck.seed]
        if name != CONTROL or not seeds:
            return found


def _one_life(name: str, entry: str, seeds: str, cpu_s: int) -> tuple[list[Seen], Seen | None]:
    """What a process told before it ended, and the seed in which it got stuck or died."""
    command = [sys.executable, "-m", "tests.simulator.saboteurs.victim", name, entry, seeds, str(cpu_s)]
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
    return seen, Seen(seed=lines[-1]["at"], kind="stuck", invariant=None, detail=how, seconds=float(cpu_s), digest=None)
