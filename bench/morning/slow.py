"""Phones on the slowest networks: when their bytes trickle in, drawn from the weak-network profiles.

What such a phone does to a server is to hold a connection open: the request comes in pieces, now and then none until
the link is back, and the answer takes a round trip before the phone closes. Seconds here are real seconds, in the
compressed morning too: the server's deadlines are.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.weaknet.draws import Stream, Table
from tests.weaknet.profile import Link, load

PROFILES = ("gprs-rooftop-once-a-day", "upper-egypt-edge-rural", "school-dsl-quota-spent", "minya-school-wifi-herd")
"""The four with the least upload rate in the middle of their distribution: 18 to 76 kbit/s."""
PIECES = 6
SILENCE_MAX_S = 20.0  # the server gives a body 30 s; whoever is silent for longer begins again, as after a torn one


@dataclass(frozen=True, slots=True, kw_only=True)
class Drip:
    """One slow request: seconds after the connection at which each piece goes, and how long the close takes."""

    at_s: tuple[float, ...]
    linger_s: float


def drips(count: int, *, seed: int, bytes_sent: int, patience: float = 1.0) -> list[Drip]:
    """Draw `count` slow requests of about `bytes_sent` bytes, the profiles in turn; all times by `patience`."""
    links = [(name, load(name).links[0]) for name in PROFILES]
    return [
        _drip(*links[number % len(links)], seed * 1_000_003 + number, bytes_sent, patience) for number in range(count)
    ]


def _drip(name: str, link: Link, seed: int, bytes_sent: int, patience: float) -> Drip:
    def value(field: str, table: Table, k: int = 0) -> float:
        return Stream(name, seed, f"{link.name}.{field}").value(table, k)

    rtt_s = value("rtt_ms", link.rtt_ms) / 1000
    rate_kbps = link.goodput_kbps(value("up_kbps", link.up_kbps), rtt_s * 1000)
    step_s = bytes_sent * 8 / PIECES / (max(8.0, rate_kbps) * 1000)
    at_s, moments = 1.5 * rtt_s, []  # TLS's round trip as well: this connection has none, a real one is held for it
    on_left_s = value("flap.on_s", link.flap.on_s) if link.flap else float("inf")
    for piece in range(PIECES):
        on_left_s -= step_s
        if on_left_s < 0 and link.flap:
            at_s += min(SILENCE_MAX_S, value("flap.off_s", link.flap.off_s, piece))
            on_left_s = value("flap.on_s", link.flap.on_s, piece + 1)
        at_s += step_s
        moments.append(at_s)
    return Drip(at_s=tuple(at * patience for at in moments), linger_s=rtt_s * patience)
