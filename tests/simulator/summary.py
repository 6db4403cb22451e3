"""Records added up for people: lateness, bytes, requests, faults, checks and speed, per profile and in all.

python -m tests.simulator.summary FILE.jsonl                     what a campaign's file says
python -m tests.simulator.summary --write docs [--seeds 30]      plays every profile's own weather and writes the
                                                                 tables and the picture of docs/reliability.md
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.simulator.ledger import percentiles
from tests.simulator.record import Record, replays


@dataclass(slots=True, kw_only=True)
class Total:
    """Some worlds added up.

    Attributes:
        cpu_s: Processor time of one core.
    """

    worlds: int = 0
    school_days: int = 0
    registers: int = 0
    requests: int = 0
    failed_requests: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    promised: int = 0
    restores: int = 0
    cpu_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    lateness_ms: list[int] = field(default_factory=list)
    broken: list[tuple[str, str, str]] = field(default_factory=list)  # command, invariant, detail

    def add(self, record: Record) -> None:
        """One world more."""
        self.worlds += 1
        self.school_days += record.school_days
        self.registers += record.registers
        self.requests += record.requests
        self.failed_requests += record.failed_requests
        self.bytes_up += record.bytes_up
        self.bytes_down += record.bytes_down
        self.promised += record.promised
        self.restores += record.restores
        self.cpu_s += record.cpu_s
        self.faults += record.faults
        self.checks += record.checks
        self.points += record.points
        self.lateness_ms += record.lateness_ms
        self.broken += [(record.job.command(), seen.invariant, seen.detail) for _, seen in replays([record])]

    @property
    def fault_count(self) -> int:
        """Faults of all kinds."""
        return self.faults.total()

    @property
    def speed(self) -> float:
        """School-days per second of one core's time."""
        return self.school_days / self.cpu_s if self.cpu_s else 0.0

    def per_register(self, value: int) -> float:
        """`value` for each register that a teacher set out to take."""
        return value / self.registers if self.registers else 0.0

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "worlds": self.worlds,
            "school_days": self.school_days,
            "registers": self.registers,
            "changes_arrived": len(self.lateness_ms),
            "lateness_ms": dict(percentiles(self.lateness_ms)),
            "bytes_up_per_register": round(self.per_register(self.bytes_up)),
            "bytes_down_per_register": round(self.per_register(self.bytes_down)),
            "requests": self.requests,
            "failed_requests": self.failed_requests,
            "promised": self.promised,
            "restores": self.restores,
            "faults": dict(sorted(self.faults.items())),
            "faults_in_all": self.fault_count,
            "checks": dict(sorted(self.checks.items(), key=lambda one: _natural(one[0]))),
            "points": dict(sorted(self.points.items())),
            "cpu_s": round(self.cpu_s, 1),
            "school_days_per_core_second": round(self.speed, 2),
            "violations": [
                {"invariant": invariant, "detail": detail, "replay": command}
                for command, invariant, detail in self.broken
            ],
        }


def _natural(name: str) -> tuple[str, int, str]:
    """`I2` before `I10`."""
    digits = "".join(one for one in name if one.isdigit())
    return name.rstrip("0123456789"), int(digits or 0), name


@dataclass(slots=True)
class Summary:
    """Records by profile, and all of them."""

    whole: Total = field(default_factory=Total)
    by_profile: dict[str, Total] = field(default_factory=dict)
    digests: list[tuple[str, int, str]] = field(default_factory=list)  # profile, seed, digest

    def add(self, record: Record) -> None:
        """One world more."""
        self.whole.add(record)
        self.digests.append((record.job.profile, record.job.seed, record.digest))
        self.by_profile.setdefault(record.job.profile, Total()).add(record)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Summary:
        """Of some records."""
        summary = cls()
        for record in records:
            summary.add(record)
        return summary

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        profiles = {name: total.to_plain() for name, total in sorted(self.by_profile.items())}
        return {**self.whole.to_plain(), "profiles": profiles}

    def rows(self) -> list[tuple[str, Total]]:
        """Profiles in order of their names."""
        return sorted(self.by_profile.items())


def in_words(duration_ms: float) -> str:
    """A duration as people say it: `850 ms`, `12 s`, `4.5 min`, `2.1 h`, `3.0 d`."""
    for unit, size_ms, above_ms in (
        ("d", 86_400_000, 172_800_000),
        ("h", 3_600_000, 3_600_000),
        ("min", 60_000, 60_000),
    ):
        if duration_ms >= above_ms:
            return f"{duration_ms / size_ms:.1f} {unit}"
    return f"{duration_ms / 1000:.1f} s" if duration_ms >= 1000 else f"{duration_ms:.0f} ms"


def lateness_words(total: Total) -> Sequence[str]:
    """p50, p95 and max in words; dashes where nothing arrived."""
    found: Mapping[str, int] = percentiles(total.lateness_ms)
    return [in_words(found[name]) if found else "–" for name in ("p50", "p95", "max")]


def main() -> None:
    """See the module; here, so that the sums above need nothing of the page and the processes."""
    from tests.simulator.summary_cli import main as command

    command()


if __name__ == "__main__":
    main()
