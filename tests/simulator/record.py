"""What is asked of a world and what came of it, as values that fit on one line of JSON.

A job names everything a world depends on, so a job is also the command that plays it again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from tests.simulator.ledger import Violation
from tests.simulator.run import Report, simulate
from tests.simulator.world import Size

STUCK = "I7"  # a world that does not end: something waits for ever
TRACE_LINES = 200  # what a replay command shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One world to play.

    Attributes:
        only: Fault classes that may be on; None: all that the seed draws.
        quiet: No fault classes at all: the profile's own weather.
        keep: Lines of the trace to bring back.
        brings_samples: Whether some merged registers come back with the record.
        saboteur: A bug planted in the product first (tests/simulator/saboteurs).
    """

    seed: int
    profile: str
    size: Size
    only: tuple[str, ...] | None = None
    quiet: bool = False
    keep: int = 0
    brings_samples: bool = False
    saboteur: str | None = None

    def command(self) -> str:
        """What a person types to see it again."""
        size = self.size
        words = [f"hudur simulate {self.profile} --seed {self.seed} --days {size.days} --schools {size.schools}"]
        words += [f"--devices {size.teachers} --pupils {size.pupils}"]
        words += ["--quiet-faults"] if self.quiet else []
        words += [] if self.only is None else [f"--only {','.join(self.only) or 'none'}"]
        words += [] if self.saboteur is None else [f"--saboteur {self.saboteur}"]
        return " ".join([*words, f"--trace {TRACE_LINES}"])

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Job:
        """As `to_json` wrote it."""
        return cls.from_plain(json.loads(line))

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Job:
        """From the fields of `asdict`; others are passed over."""
        only = plain["only"]
        return cls(
            seed=plain["seed"],
            profile=plain["profile"],
            size=Size(**plain["size"]),
            only=None if only is None else tuple(only),
            quiet=plain["quiet"],
            keep=plain["keep"],
            brings_samples=plain.get("brings_samples", False),
            saboteur=plain["saboteur"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What one world did, without what it was made of.

    Attributes:
        cpu_s: Processor time it took; the only thing here that depends on the machine.
        lateness_ms: See `tests.simulator.run.Report`.
        samples: Chunks of some merged registers, if the job asked for them.
        digest: Empty for a world that did not end.
    """

    job: Job
    cpu_s: float
    violations: tuple[Violation, ...]
    digest: str = ""
    school_days: int = 0
    registers: int = 0
    virtual_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    lateness_ms: tuple[int, ...] = ()
    requests: int = 0
    failed_requests: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    promised: int = 0
    restores: int = 0
    samples: tuple[tuple[bytes, ...], ...] = ()
    tail: tuple[str, ...] = ()

    @classmethod
    def of(cls, job: Job, report: Report, cpu_s: float) -> Record:
        """Of a world that ended."""
        return cls(
            job=job,
            cpu_s=round(cpu_s, 3),
            violations=report.violations,
            digest=report.digest,
            school_days=report.school_days,
            registers=report.registers,
            virtual_s=report.virtual_s,
            faults=report.faults,
            checks=report.checks,
            points=report.points,
            lateness_ms=report.lateness_ms,
            requests=report.requests,
            failed_requests=report.failed_requests,
            bytes_up=report.bytes_up,
            bytes_down=report.bytes_down,
            promised=report.promised,
            restores=report.restores,
            samples=report.samples if job.brings_samples else (),
            tail=report.tail,
        )

    @classmethod
    def stuck(cls, job: Job, cpu_s: float, why: str) -> Record:
        """Of a world whose process had to be ended, or ended by itself."""
        return cls(job=job, cpu_s=cpu_s, violations=(Violation(invariant=STUCK, at_ms=0, detail=why),))

    def to_json(self) -> str:
        """One line."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}  # `asdict` spoils a Counter
        plain["job"] = asdict(self.job)
        plain["violations"] = [asdict(one) for one in self.violations]
        plain["samples"] = [[chunk.hex() for chunk in chunks] for chunks in self.samples]
        return json.dumps(plain)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """As `to_json` wrote it."""
        plain = json.loads(line)
        known = {**plain, "job": Job.from_plain(plain["job"])}
        known["violations"] = tuple(Violation(**one) for one in plain["violations"])
        known |= {name: Counter(plain[name]) for name in ("faults", "checks", "points")}
        known |= {name: tuple(plain[name]) for name in ("lateness_ms", "tail")}
        known["samples"] = tuple(tuple(map(bytes.fromhex, chunks)) for chunks in plain.get("samples", ()))
        return cls(**known)

    def without_machine(self) -> Record:
        """What may not differ between two runs of one job."""
        return replace(self, cpu_s=0.0)


def play(job: Job) -> Record:
    """One world in this process (without its saboteur: see `tests.simulator.child`)."""
    before_s = time.process_time()
    report = simulate(job.seed, profile=job.profile, size=job.size, only=job.only, quiet=job.quiet, keep=job.keep)
    return Record.of(job, report, time.process_time() - before_s)


def replays(records: Sequence[Record]) -> list[tuple[Record, Violation]]:
    """Each world that broke something, with the first thing it broke."""
    return [(record, record.violations[0]) for record in records if record.violations]
