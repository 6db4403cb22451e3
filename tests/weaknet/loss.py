"""Gilbert-Elliott loss, one step for each packet, from draws and not from a stream of random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class GilbertElliott:
    """A chain of two states. `uniform(k)` is the k-th draw in [0, 1); a packet uses two.

    Attributes:
        g2b: Chance to go from good to bad before a packet.
        b2g: Chance to go back.
        bad: Chance that a packet is lost in the bad state.
        good: The same in the good state.
    """

    g2b: float
    b2g: float
    bad: float
    good: float
    uniform: Callable[[int], float]
    packets: int = 0
    lost_packets: int = 0
    _is_bad: bool = False

    def lost(self) -> bool:
        """Whether the next packet is lost."""
        k = 2 * self.packets
        self.packets += 1
        if self.uniform(k) < (self.b2g if self._is_bad else self.g2b):
            self._is_bad = not self._is_bad
        gone = self.uniform(k + 1) < (self.bad if self._is_bad else self.good)
        self.lost_packets += gone
        return gone
