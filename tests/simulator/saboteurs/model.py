"""A saboteur: one line of the product replaced by the line of a plausible bug. Pure; imports nothing of the product."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

INVARIANTS = {
    "I1": "a mark shown as saved is there after any kill or power cut of the phone",
    "I2": "a change anyone holds a durable receipt for is in the log after every crash, restore and re-offer",
    "I3": "received = durable + duplicate + held + refused, told to the sender",
    "I4": "the outcome depends on the set of changes only; incremental = recomputed",
    "I5": "absent implies an unsuperseded mark of somebody entitled",
    "I6": "no event is lost or sent twice with different content",
    "I7": "a poison change delays nobody; every input is refused within bounds",
    "I8": "when faults stop, every device is empty-handed, settled and up to date within two maximal back-offs",
    "I9": "pending is never too low, confirmed is never shown for what is not",
    "I10": "own merge = Automerge's merge",
    "I11": "nothing of a revoked subject alters an outcome",
    "C3": "marks made without sight of each other are disputed with all their values, and only those",
    "D9": "an amnesiac phone is recognised and told",
    "L2": "a busy server is left alone for as long as it asks",
    "S2": "replaying what was accepted once changes nothing",
    "S5": "two changes or frames of one name are both kept, never both counted, and reported",
    "S11": "server time decides windows; a device's clock is evidence only",
    "S12": "the true moment of a tap lies inside its capture interval",
}
"""I1-I11: the design's; C, D, L, S: `reliability.md` section 3, in short."""


class NotApplicable(Exception):
    """The text a saboteur replaces is not in its file exactly once: the product has moved on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saboteur:
    """One planted bug.

    Attributes:
        name: Slug.
        file: Path of the product's file, from the repository's root.
        before: What stands there exactly once; more than one line only where one alone is not unique.
        after: What the bug's author would have written.
        breaks: Keys of `INVARIANTS`, the one most to the point first.
        why: Why a person might write it.
        seen_by: Which fault and which checker show it.
    """

    name: str
    file: str
    before: str
    after: str
    breaks: tuple[str, ...]
    why: str
    seen_by: str

    @property
    def module(self) -> str:
        """The module to which the file is imported."""
        return self.file.removesuffix(".py").replace("/", ".")

    def source(self) -> str:
        """The file's text as it is."""
        return (ROOT / self.file).read_text(encoding="utf-8")

    def apply(self, source: str) -> str:
        """`source` with the bug in it.

        Raises:
            NotApplicable: when `before` is not in it exactly once.
        """
        found = source.count(self.before)
        if found != 1:
            raise NotApplicable(f"{self.name}: its text stands {found} times in {self.file}")
        return source.replace(self.before, self.after)
