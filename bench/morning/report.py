"""What the morning found, as figures with their goals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.morning import plan
from bench.morning.plan import Size
from bench.morning.tally import AGAIN, AT_ONCE, SINCE_DUE, SINCE_SENT, SLOWLY, Tally
from bench.morning.watch import Watch
from bench.results import Chart, Goal, Result, Row

_STEPS = 60  # points of a chart
_LAG_S = 5.0
_RAMP_S = 3.0  # of the overload, until queues are what they will be


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Accepted registers per second when phones wait for their answers; CPU-seconds of taking and of settling one.

    `beside_per_s`: the same while `knocked_per_s` connections a second were answered at another door.
    """

    per_s: float
    beside_per_s: float
    knocked_per_s: float
    push_s: float
    settle_s: float
    tallies: tuple[Tally, ...]

    def __str__(self) -> str:
        return (
            f"capacity {self.per_s:,.0f} registers/s with settling beside it, "
            f"{self.beside_per_s:,.0f} beside {self.knocked_per_s:,.0f}/s who knock elsewhere; "
            f"CPU {self.push_s * 1e3:.2f} s per 1,000 taken, {self.settle_s * 1e3:.2f} s per 1,000 settled"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One part of the run: what the phones saw, what was seen of the server."""

    name: str
    over_s: float
    sessions: int
    tally: Tally
    watch: Watch
    server_cpu_s: float
    load_cpu_s: float

    @property
    def ended_s(self) -> float:
        """When everything was answered and settled, and everybody told of it or tired of asking."""
        return self.watch.samples[-1].at_s

    @property
    def rss_mb(self) -> tuple[float, float]:
        """The server's memory at the beginning and at its most."""
        sizes = [sample.rss_mb for sample in self.watch.samples]
        return sizes[0], max(sizes)

    def lag_over_s(self, since_s: float) -> float:
        """Seconds after a moment until the lag stayed below `_LAG_S`."""
        above = [s.at_s for s in self.watch.samples if s.lag_s is not None and s.lag_s >= _LAG_S]
        return max(0.0, above[-1] - since_s) if above else 0.0

    def settled_per_s(self, until_s: float) -> float:
        """Registers settled per second up to a moment, as the server's metrics tell; 0 where they were told once."""
        told = [(s.at_s, s.settled) for s in self.watch.samples if s.settled is not None and s.at_s <= until_s]
        if len(told) < 2:
            return 0.0
        (first_s, first), (last_s, last) = told[0], told[-1]
        return (last - first) / (last_s - first_s)

    def lag_max_s(self) -> float:
        """The longest lag."""
        return max((s.lag_s for s in self.watch.samples if s.lag_s is not None), default=0.0)


@dataclass(slots=True, kw_only=True)
class Findings:
    """Everything one run found."""

    size: Size
    capacity: Capacity
    morning: Stage
    overload: Stage
    proof: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)
    store_mb: float = 0.0

    @property
    def goodput_per_s(self) -> float:
        """Registers accepted per second while three times the capacity was offered."""
        from_s, until_s = min(_RAMP_S, self.overload.over_s / 4), self.overload.over_s
        return self.overload.tally.registers_between(from_s, until_s) / (until_s - from_s)

    def problems(self) -> list[str]:
        """What may not be; empty in a run that shows what it is to show. Speed is no part of it."""
        found = [f"{name}: {self.proof[name]}" for name in _ZEROS if self.proof[name]]
        if self.proof["registers"] == 0 or self.proof["events read"] == 0:
            found.append("nothing was compared")
        for tally in self.tallies():
            found += tally.wrong
            if tally.counts["not told"]:
                found.append(f"phones that were tired of asking: {tally.counts['not told']}")
        return found + self.different

    def tallies(self) -> tuple[Tally, ...]:
        """Of every stage."""
        return *self.capacity.tallies, self.morning.tally, self.overload.tally


_ZEROS = (
    "lost",
    "doubled",
    "different",
    "false absent",
    "not of ours",
    "unreadable pages",
    "dead letters",
    "unsettled",
)


def percentile(values: list[float], share: float) -> float:
    """Nearest rank; 0 of nothing."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)] if ranked else 0.0


def to_result(found: Findings) -> Result:
    """The figures and pictures of a run."""
    return Result(
        name="morning",
        title="The national morning",
        rows=(*_size_rows(found), *_proof_rows(found), *_morning_rows(found), *_overload_rows(found)),
        charts=(*_charts(found.morning), *_charts(found.overload)),
    )


def _size_rows(found: Findings) -> list[Row]:
    size, capacity, morning = found.size, found.capacity, found.morning
    return [
        Row(name="device sessions", value=size.sessions, unit="", group="size"),
        Row(name="schools", value=size.schools, unit="", group="size"),
        Row(name="capacity, settling beside it", value=capacity.per_s, unit="registers/s", group="size"),
        Row(name="the 45 minutes became", value=morning.over_s, unit="s", group="size"),
        Row(name="compression", value=plan.MORNING_S / morning.over_s, unit="×", group="size"),
        Row(
            name="peak of the plan",
            value=size.sessions * plan.PEAK_TO_MEAN / morning.over_s,
            unit="sessions/s",
            note=f"of the real 45 minutes: {size.sessions * plan.PEAK_TO_MEAN / plan.MORNING_S:,.0f} a second",
            group="size",
        ),
        Row(name="store afterwards", value=found.store_mb, unit="MB", group="size"),
    ]


def _proof_rows(found: Findings) -> list[Row]:
    zero = Goal(limit=0)
    shown = [("registers", None), ("lost", zero), ("doubled", zero), ("false absent", zero), ("different", zero)]
    shown += [("marks", None), ("events", None), ("events read", None), ("unsettled", zero), ("dead letters", zero)]
    rows = [Row(name=name, value=found.proof[name], unit="", goal=goal, group="proof") for name, goal in shown]
    wrong, proved = (sum(one.counts[word] for one in found.tallies()) for word in ("wrong", "proved"))
    return [
        *rows,
        Row(name="answers that were wrong", value=wrong, unit="", goal=zero, group="proof"),
        Row(name="answers proved whole, signature included", value=proved, unit="", group="proof"),
    ]


def _morning_rows(found: Findings) -> list[Row]:
    stage = found.morning
    tally, peak = stage.tally, (plan.PEAK_FROM * stage.over_s, plan.PEAK_UNTIL * stage.over_s)
    sent = tally.waits_s(AT_ONCE, since=SINCE_SENT, from_s=peak[0], until_s=peak[1])
    due = tally.waits_s(AT_ONCE, since=SINCE_DUE, from_s=peak[0], until_s=peak[1])
    slow = tally.waits_s(SLOWLY, since=SINCE_SENT, from_s=peak[0], until_s=peak[1])
    rows = [
        ("p50 at the peak, from the bytes sent", percentile(sent, 0.5), "s", None),
        ("p99 at the peak, from the bytes sent", percentile(sent, 0.99), "s", Goal(limit=2.0)),
        ("p99 at the peak, from the moment it was due", percentile(due, 0.99), "s", Goal(limit=2.0)),
        ("p99 at the peak, slow phones, from the last byte", percentile(slow, 0.99), "s", Goal(limit=2.0)),
        ("p99 of those that came again", percentile(tally.waits_s(AGAIN, since=SINCE_DUE), 0.99), "s", None),
        ("lag back under 5 s, after the peak", stage.lag_over_s(peak[1]), "s", Goal(limit=120)),
        ("longest lag", stage.lag_max_s(), "s", None),
    ]
    return _rows(rows, "morning") + _common_rows(stage)


def _overload_rows(found: Findings) -> list[Row]:
    stage, rate = found.overload, found.goodput_per_s
    sent = stage.tally.waits_s(AT_ONCE, since=SINCE_SENT, until_s=stage.over_s)
    again = stage.tally.waits_s(AGAIN, since=SINCE_DUE)
    rows = [
        ("offered, first requests of one register", stage.sessions / stage.over_s, "registers/s", None),
        ("goodput", rate, "registers/s", None),
        ("goodput of the capacity", rate / found.capacity.per_s, "", Goal(limit=0.8, at_least=True)),
        ("capacity while a crowd knocks at another door", found.capacity.beside_per_s, "registers/s", None),
        ("answered at that door", found.capacity.knocked_per_s, "connections/s", None),
        ("goodput of that capacity", rate / found.capacity.beside_per_s, "", None),
        ("settled meanwhile", stage.settled_per_s(stage.over_s), "registers/s", None),
        ("p99 of those accepted at once, from the bytes sent", percentile(sent, 0.99), "s", None),
        ("p99 of those that came again, from the moment they were due", percentile(again, 0.99), "s", None),
        ("all accepted and settled after", stage.tally.settled_s, "s", None),
        ("everybody told after", stage.ended_s, "s", None),
        ("longest lag", stage.lag_max_s(), "s", None),
    ]
    return _rows(rows, "three times the capacity") + _common_rows(stage)


def _common_rows(stage: Stage) -> list[Row]:
    counts = stage.tally.counts
    first_mb, most_mb = stage.rss_mb
    failed = sum(count for word, count in counts.items() if word.startswith("failed"))
    group = "morning" if stage.name == "morning" else "three times the capacity"
    told_s = list(stage.tally.told_s)
    rows = [
        ("tries", counts["tries"], "", None),
        ("accepted", counts["accepted"], "", None),
        ("shed with 503 and Retry-After", counts["shed"], "", None),
        ("failed tries (torn, answer lost, silence, closed)", failed, "", None),
        ("asks for the confirmation, after the receipt", counts["asks"], "", None),
        ("of these put off", counts["asks put off"], "", None),
        ("of these failed", sum(n for word, n in counts.items() if word.startswith("asks failed")), "", None),
        ("phones told", len(told_s), "", None),
        ("phones that were tired of asking", counts["not told"], "", Goal(limit=0)),
        ("told after the receipt, p50", percentile(told_s, 0.5), "s", None),
        ("told after the receipt, p99", percentile(told_s, 0.99), "s", None),
        ("connections open at once, most", stage.tally.connections_max, "", None),
        ("server memory at the beginning", first_mb, "MB", None),
        ("server memory, most", most_mb, "MB", None),
        ("server CPU", stage.server_cpu_s, "s", None),
        (
            "server CPU per 1,000 accepted, settled and told too",
            stage.server_cpu_s / max(1, counts["accepted"]) * 1e3,
            "s",
            None,
        ),
        ("load's own CPU", stage.load_cpu_s, "s", None),
        ("metrics answered", len(stage.watch.metrics_waits_s), "", None),
        ("metrics not answered", stage.watch.metrics_failed, "", None),
        ("metrics, slowest answer", max(stage.watch.metrics_waits_s, default=0.0), "s", None),
    ]
    return _rows(rows, group)


def _rows(rows: Sequence[tuple[str, float, str, Goal | None]], group: str) -> list[Row]:
    return [Row(name=name, value=value, unit=unit, goal=goal, group=group) for name, value, unit, goal in rows]


def _charts(stage: Stage) -> list[Chart]:
    samples = stage.watch.samples
    step = max(1, math.ceil(len(samples) / _STEPS))
    groups = [samples[at : at + step] for at in range(0, len(samples), step)]
    x = tuple(f"{group[0].at_s:.0f}" for group in groups)

    def mean(word: str) -> tuple[float | None, ...]:
        return tuple(sum(getattr(one, word) for one in group) / len(group) for group in groups)

    def most(word: str) -> tuple[float | None, ...]:
        return tuple(
            max((v for one in group if (v := getattr(one, word)) is not None), default=None) for group in groups
        )

    name = stage.name
    return [
        Chart(
            name=f"{name}-rates",
            title=f"{name}: requests a second",
            x=x,
            lines={"tried": mean("tries"), "accepted": mean("accepted"), "shed": mean("shed")},
            unit="1/s",
        ),
        Chart(name=f"{name}-lag", title=f"{name}: consumer lag", x=x, lines={"lag": most("lag_s")}, unit="s"),
        Chart(
            name=f"{name}-memory", title=f"{name}: server memory", x=x, lines={"resident": most("rss_mb")}, unit="MB"
        ),
        Chart(name=f"{name}-open", title=f"{name}: connections", x=x, lines={"open": most("open")}, unit=""),
    ]
