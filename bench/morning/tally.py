"""What the phones saw: counts, waits, and whatever may not be."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

AT_ONCE, SLOWLY, AGAIN = range(3)
"""How a request was accepted: at the first try, through a slow network, or after another try."""
SINCE_SENT, SINCE_DUE, _REGISTERS, _WIDTH = 2, 3, 4, 5
_WRONG_KEPT = 50


@dataclass(slots=True)
class Tally:
    """What happened.

    Attributes:
        seconds: Counts of each second of the run.
        accepted: Of each accepted request: when it was due, how it came, its two waits, and its registers.
        told_s: Of each phone that was told of all it sent: how long after its last receipt.
        settled_s: When everything was accepted and settled.
    """

    counts: Counter[str] = field(default_factory=Counter)
    seconds: dict[int, Counter[str]] = field(default_factory=dict)
    accepted: array[float] = field(default_factory=lambda: array("d"))
    told_s: array[float] = field(default_factory=lambda: array("d"))
    settled_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    connections_max: int = 0

    def count(self, word: str, now_s: float) -> None:
        """One more, in all and in its second."""
        self.counts[word] += 1
        second = int(now_s)
        if second not in self.seconds:
            self.seconds[second] = Counter()
        self.seconds[second][word] += 1

    def is_wrong(self, what: str) -> None:
        """Something that may not happen."""
        self.counts["wrong"] += 1
        if len(self.wrong) < _WRONG_KEPT:
            self.wrong.append(what)

    def waits_s(self, kind: int, *, since: int, from_s: float = 0.0, until_s: float = float("inf")) -> list[float]:
        """Waits of accepted requests that were due in a span: since the last byte was sent, or since they were due."""
        rows = self.accepted
        return [
            rows[at + since]
            for at in range(0, len(rows), _WIDTH)
            if rows[at + 1] == kind and from_s <= rows[at] < until_s
        ]

    def done_s(self) -> list[float]:
        """When each accepted request was answered, ascending."""
        rows = self.accepted
        return sorted(rows[at] + rows[at + SINCE_DUE] for at in range(0, len(rows), _WIDTH))

    def registers_between(self, from_s: float, until_s: float) -> int:
        """Registers of the requests that were accepted in a span."""
        rows = self.accepted
        return int(
            sum(
                rows[at + _REGISTERS]
                for at in range(0, len(rows), _WIDTH)
                if from_s <= rows[at] + rows[at + SINCE_DUE] < until_s
            )
        )
