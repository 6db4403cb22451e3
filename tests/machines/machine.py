"""The state machine: one rule per thing that a person, the network, a disk or a clock can do."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, multiple, precondition, rule

from clientcore.frame import write_bundle
from tests.machines.term import CHAMPION, PUPILS, TEACHERS, Start, Term
from tests.machines.troubles import (
    CLASSES,
    CODES,
    Blow,
    How,
    Jump,
    Nothing,
    Trouble,
    blows,
    deaths,
    jumps,
    maybe,
    troubles,
)
from tests.weaknet.profile import Profile, load

HOUR_MS = 3_600_000
WAITS_MS = (1_000, 300_000, 2 * HOUR_MS, 24 * HOUR_MS, 73 * HOUR_MS)  # 72 hours bury what waits for a lost change
FILE_BYTES_MAX = 1_200  # of a bundle cut short: two frames
_MAGIC_BYTES = 8  # what is cut before that is no bundle at all, and refused as such


def _of_profile(choice: Callable[[Profile], st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """A strategy that depends on the machine's profile."""
    return st.runner().flatmap(lambda machine: choice(machine.profile))


_phone = st.sampled_from(TEACHERS)
_class = st.sampled_from(CLASSES)
_day = st.integers(0, 1)
_pupil = st.integers(0, PUPILS - 1)
_phone_blow = maybe(blows("phone", reach=24))
_server_blow = maybe(blows("server", reach=24))
_trouble = _of_profile(troubles)
_carry_trouble = maybe(st.one_of(blows("server"), blows("phone")), blanks=2)
_talker = _of_profile(lambda profile: st.sampled_from(TEACHERS if profile.links else (CHAMPION,)))


def _blow(trouble: Trouble) -> Blow | None:
    return trouble if isinstance(trouble, Blow) else None


@lru_cache(maxsize=32)
def _start(profile: Profile) -> Start:
    return Term.prepare(profile)


class SchoolMachine(RuleBasedStateMachine):
    """Two teachers, a champion, a server; subclasses say which profile's weather they live in."""

    profile: ClassVar[Profile] = load("cairo-4g-good")
    files: ClassVar[Bundle[list[bytes]]] = Bundle("files")

    def __init__(self) -> None:
        super().__init__()
        self.term: Term | None = None
        self.is_broken = False

    @initialize()
    def school_begins(self) -> None:
        """Ten to eight on the first school day; all phones are enrolled."""
        self.term = Term.begin(self.profile, _start(self.profile))

    def do(self, name: str, *args: Any, **named: Any) -> Any:
        """One step of the term; a broken one spoils the last checks, so they are left out."""
        assert self.term is not None
        try:
            return self.term.run(getattr(self.term, name)(*args, **named))
        except BaseException:
            self.is_broken = True
            raise

    # ---- people ----

    @rule(phone=_phone, class_id=_class, day=_day, pupil=_pupil, code=st.sampled_from(CODES), blow=_phone_blow)
    def tap(self, phone: str, class_id: str, day: int, pupil: int, code: str, blow: Trouble) -> None:
        self.do("tap", phone, class_id, day, pupil, code, _blow(blow))

    @rule(phone=_phone, class_id=_class, day=_day, absent=st.sampled_from(([], [0], [1])), blow=_phone_blow)
    def take(self, phone: str, class_id: str, day: int, absent: list[int], blow: Trouble) -> None:
        self.do("take", phone, class_id, day, absent, _blow(blow))

    @rule(phone=_phone, act=st.sampled_from(("seal", "undo")), blow=_phone_blow)
    def act(self, phone: str, act: str, blow: Trouble) -> None:
        self.do("act", phone, act, _blow(blow))

    @rule(wait_ms=st.sampled_from(WAITS_MS))
    def wait(self, wait_ms: int) -> None:
        self.do("wait", wait_ms)

    # ---- talking ----

    @rule(
        phone=_phone,
        class_id=_class,
        day=_day,
        pupil=_pupil,
        code=st.sampled_from(CODES),
        trouble=_trouble,
        settles=st.booleans(),
    )
    def tap_and_send(
        self, phone: str, class_id: str, day: int, pupil: int, code: str, trouble: Trouble, settles: bool
    ) -> None:
        """What happens most: a tap, and at once the road it takes, if there is only the courier's."""
        self.do("tap", phone, class_id, day, pupil, code, None)
        if self.profile.links:
            self.do("sync", [phone], trouble, 0, settles=settles)
        else:
            self.do("carry", phone, trouble if isinstance(trouble, Blow) else Nothing())

    @rule(phone=_talker, trouble=_trouble, settles=st.booleans())
    def sync(self, phone: str, trouble: Trouble, settles: bool) -> None:
        self.do("sync", [phone], trouble, 0, settles=settles)

    @rule(phone=_talker, trouble=_trouble, number=st.integers(1, 2), settles=st.booleans())
    def sync_and_meet_it_later(self, phone: str, trouble: Trouble, number: int, settles: bool) -> None:
        self.do("sync", [phone], trouble, number, settles=settles)

    @precondition(lambda self: bool(self.profile.links))
    @rule(trouble=_trouble, settles=st.booleans())
    def sync_together(self, trouble: Trouble, settles: bool) -> None:
        self.do("sync", [*TEACHERS, CHAMPION], trouble, 0, settles=settles)

    @rule(phone=_talker, back=st.integers(0, 4))
    def deliver_again(self, phone: str, back: int) -> None:
        self.do("deliver_again", phone, back)

    # ---- machines ----

    @rule(phone=_phone, how=deaths, blow=_phone_blow)
    def restart_phone(self, phone: str, how: How, blow: Trouble) -> None:
        self.do("restart_phone", phone, how, _blow(blow))

    @rule(how=deaths, blow=_server_blow)
    def restart_server(self, how: How, blow: Trouble) -> None:
        self.do("restart_server", how, _blow(blow))

    @precondition(lambda self: bool(jumps(self.profile)))
    @rule(phone=_phone, jump=_of_profile(lambda profile: st.sampled_from(jumps(profile) or (Jump(),))))
    def jump_clock(self, phone: str, jump: Jump) -> None:
        self.do("jump", phone, jump)

    # ---- the courier ----

    @rule(target=files, phone=_phone, everything=st.booleans(), blow=_phone_blow)
    def export(self, phone: str, everything: bool, blow: Trouble) -> MultipleResults[list[bytes]]:
        frames = self.do("export", phone, everything=everything, blow=_blow(blow))
        return multiple(frames) if frames else multiple()

    @rule(file=files, cut=st.one_of(st.none(), st.integers(_MAGIC_BYTES, FILE_BYTES_MAX)), trouble=_carry_trouble)
    def hand_in(self, file: list[bytes], cut: int | None, trouble: Trouble) -> None:
        self.do("hand_in", write_bundle(file)[:cut], trouble)

    @rule(phone=_phone, trouble=_carry_trouble)
    def carry(self, phone: str, trouble: Trouble) -> None:
        self.do("carry", phone, trouble)

    # ---- the server ----

    @rule(blow=_server_blow)
    def settle(self, blow: Trouble) -> None:
        self.do("settle", _blow(blow))

    @rule(act=st.sampled_from(("read", "backup")))
    def office(self, act: str) -> None:
        """A consumer reads the feed; or the store is backed up."""
        self.do(act)

    @rule(back=st.integers(0, 2), whole_offer=st.booleans())
    def restore(self, back: int, whole_offer: bool) -> None:
        self.do("restore", back, whole_offer=whole_offer)

    # ---- the end ----

    def teardown(self) -> None:
        """Faults off, everybody syncs, the last checks; always the end of this world."""
        if self.term is None:
            return
        try:
            if not self.is_broken:
                self.do("calm")
        finally:
            self.term.close()


def machine_of(name: str) -> type[SchoolMachine]:
    """The machine in the weather of one profile."""
    words = "".join(part.capitalize() for part in name.split("-"))
    return type(f"School_{words}", (SchoolMachine,), {"profile": load(name)})


__all__ = ["Nothing", "SchoolMachine", "machine_of"]
