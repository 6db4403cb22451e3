"""Bundles: frames that somebody else carries, in a file. Each stands for itself; the carrier adds nothing to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from clientcore.errors import FrameRefused
from clientcore.exchange import DUPLICATE, DURABLE, HELD, REFUSED, Receipts, Verdict
from clientcore.frame import parse_frame, read_bundle
from clientcore.wire import Value
from syncserver.checking import Checker
from syncserver.errors import RequestProblem
from syncserver.intake import Intake
from syncserver.ports import ServerPorts
from syncserver.store.devices import Identity
from syncserver.store.log import Arrival, Push

_SLICE = 32  # frames checked before others get their turn, and stored in one push


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a bundle brought: the result of the call, and receipts frame by frame."""

    value: Value
    receipts: Receipts


@dataclass(slots=True)
class _Author:
    user_id: str
    registers: set[str] = field(default_factory=set)
    new_changes: int = 0


@dataclass(slots=True)
class _Tally:
    """Sums over the frames of a bundle."""

    counts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    authors: dict[bytes, _Author] = field(default_factory=dict)

    def add(self, arrival: Arrival, user_id: str, verdicts: Sequence[Verdict]) -> None:
        author = self.authors.setdefault(arrival.frame.device, _Author(user_id))
        for framed, verdict in zip(arrival.frame.changes, verdicts, strict=True):
            self.counts[verdict.kind] += 1
            if verdict.kind != REFUSED:
                author.registers.add(framed.register)
            author.new_changes += verdict.kind in (DURABLE, HELD)


class Bundles:
    """Takes bundle files."""

    def __init__(self, ports: ServerPorts, checker: Checker, intake: Intake) -> None:
        self._ports, self._checker, self._intake = ports, checker, intake

    async def take(self, carrier: Identity, file: bytes) -> Taken:
        """Make every frame of the carrier's school durable.

        Raises:
            FrameRefused: `not-an-export`, `frame-limits`.
            RequestProblem: `relay-scope` when nothing in it is of the carrier's school.
        """
        bundle = read_bundle(file)
        receipts: list[tuple[Verdict, ...] | str] = []
        tally = _Tally()
        for at in range(0, len(bundle.frames), _SLICE):
            receipts += await self._take_slice(carrier, bundle.frames[at : at + _SLICE], tally)
            self._ports.reached("bundle.after_slice")
            await self._ports.clock.sleep_ms(0)
        if bundle.frames and all(entry == "wrong-audience" for entry in receipts):
            raise RequestProblem("relay-scope", "no frame of your school is in this file")
        authors: list[Value] = [
            [device, author.user_id, len(author.registers), author.new_changes]
            for device, author in sorted(tally.authors.items())
        ]
        value: list[Value] = [
            len(bundle.frames),
            tally.counts[DURABLE],
            tally.counts[DUPLICATE],
            tally.counts[HELD],
            tally.counts[REFUSED],
            bundle.truncated,
            authors,
        ]
        return Taken(value=value, receipts=tuple(receipts))

    async def _take_slice(
        self, carrier: Identity, frames: Sequence[bytes], tally: _Tally
    ) -> list[tuple[Verdict, ...] | str]:
        checked = [await self._check(carrier, raw) for raw in frames]
        good = [one for one in checked if not isinstance(one, str)]
        if not good:
            return [one for one in checked if isinstance(one, str)]
        appended = await self._intake.commit(
            Push(device=carrier.device, arrivals=tuple(arrival for arrival, _ in good), nonce=b"", is_relayed=True)
        )
        entries: list[tuple[Verdict, ...] | str] = []
        verdicts = iter(appended.verdicts)
        for one in checked:
            if isinstance(one, str):
                entries.append(one)
            else:
                entries.append(next(verdicts))
                tally.add(*one, entries[-1])  # type: ignore[arg-type]
        return entries

    async def _check(self, carrier: Identity, raw: bytes) -> tuple[Arrival, str] | str:
        """The frame's arrival and its author, or the slug of what is wrong with it."""
        try:
            frame = parse_frame(raw)
            identity = await self._checker.identify(frame)
            self._checker.check_audience(frame, identity)
        except (FrameRefused, RequestProblem) as refused:
            return refused.code
        if identity.school != carrier.school:
            return "wrong-audience"
        return self._checker.read_changes(frame, identity, carrier=carrier.device), identity.user_id
