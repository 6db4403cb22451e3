"""The short way through the rules says what the long one says, and is taken by the usual register."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.change import Change, Op, encode
from clientcore.frame import ClockEvidence
from clientcore.history import merge
from reconciliation.decisions import Decisions, Release
from reconciliation.model import Context, Receipt, Right, Window
from reconciliation.plain import plain_outcome, settle_changes
from reconciliation.reconcile import reconcile
from reconciliation.wire import canonical
from tests.support.histories import (
    DAY,
    EIGHT_MS,
    PUPILS,
    REGISTER,
    STRANGER,
    ZONE,
    Phone,
    Step,
    play,
    steps,
    story_context,
)

RUN = settings(max_examples=1_500, derandomize=True, deadline=None, print_blob=True)
MINUTE_MS = 60_000
PHONE = Phone(label="one", user="amal")
# Minutes that lie on both sides of every bound: the tolerance, the day's ends, the day before it.
MINUTES = st.sampled_from((0, 0, 0, 1, 4, 5, 6, -4, -6, 70, 300, -300, 1_000, -1_000, 1_500, -1_500, 3_000, 100_000))
WORDS = {"~session": ("H{}", "H{}", "N{}:strike"), "~bulk": ("B{}",)}


def minutes(spread_ms: int = 1) -> st.SearchStrategy[int]:
    return st.builds(lambda minute, ms: minute * MINUTE_MS + ms, MINUTES, st.integers(-spread_ms, spread_ms))


@st.composite
def changes(draw: st.DrawFn) -> Change:
    keys = draw(st.lists(st.sampled_from((*PUPILS, STRANGER, "~session", "~bulk")), min_size=1, unique=True))
    start_ms = EIGHT_MS + draw(minutes())
    ops = []
    for key in sorted(keys):
        form = draw(st.sampled_from(WORDS.get(key, ("P{}", "P{}", "A{}", "L{}:12", "E{}:sick"))))
        ops.append(Op(key=key, value=form.format(start_ms + draw(st.sampled_from((0, 400, 90_000, 7_200_000))))))
    return encode(actor=PHONE.actor, seq=1, start_op=1, time_s=1_795_334_400, deps=[], ops=ops)


@st.composite
def receipts(draw: st.DrawFn, change: Change) -> Receipt:
    received = DAY.opens_ms + EIGHT_MS + draw(minutes())
    wall = received + draw(minutes())
    beacon = draw(st.none() | st.builds(lambda ms, came: (received + ms, came), minutes(), st.integers(0, 70_000)))
    session = change.actor[:8] if draw(st.booleans()) else b"anothers"
    return Receipt(
        change_hash=change.hash,
        device=PHONE.device,
        user_id=draw(st.sampled_from(("amal", "amal", "amal", "nobody"))),
        received_at_ms=received,
        offset=1,
        clock=ClockEvidence(wall_ms=max(wall, 0), mono_ms=65_000, session=session, beacon=beacon),
        offset_floor_ms=draw(st.none() | minutes()),
    )


@st.composite
def contexts(draw: st.DrawFn, change: Change) -> Context:
    closes_ms = DAY.opens_ms + EIGHT_MS + draw(st.integers(1, 120)) * MINUTE_MS
    window = draw(st.sampled_from((DAY, Window(opens_ms=DAY.opens_ms, closes_ms=closes_ms))))
    begins = DAY.opens_ms + EIGHT_MS + draw(minutes())
    rights = draw(
        st.sampled_from(
            (
                (Right(from_ms=0),),
                (Right(from_ms=begins),),
                (Right(from_ms=0, until_ms=begins), Right(from_ms=begins)),
                (Right(from_ms=0, until_ms=begins, revoked=True),),
            )
        )
    )
    released = Release(change_hash=change.hash, by="mona", reason="seen", at_ms=1)
    return Context(
        roster=frozenset(draw(st.sampled_from((PUPILS, PUPILS, PUPILS[:2])))),
        roster_version="3",
        zone=ZONE,
        window=window,
        entitled={"amal": rights},
        closed=draw(st.sampled_from((None, None, None, None, "holiday"))),
        revoked_devices=draw(st.sampled_from(({}, {}, {PHONE.device: begins}))),
        decisions=draw(st.sampled_from((Decisions(), Decisions(), Decisions(releases={change.hash: released})))),
        aliases=draw(st.sampled_from(({}, {}, {}, {"s1": "s2"}))),
    )


@RUN
@given(st.data())
def test_the_short_way_gives_what_reconcile_gives(data: st.DataObject) -> None:
    change = data.draw(changes())
    receipt, context = data.draw(receipts(change)), data.draw(contexts(change))
    expected = reconcile(REGISTER, merge([change]), {change.hash: receipt}, context)
    found = plain_outcome(REGISTER, change, receipt, context)
    assert found is None or (found == expected and canonical(found.to_wire()) == canonical(expected.to_wire()))
    assert settle_changes(REGISTER, [change], {change.hash: receipt}, context) == expected


@settings(max_examples=150, derandomize=True, deadline=None)
@given(steps())
def test_every_change_of_a_story_alone_and_all_together_settle_alike(story: list[Step]) -> None:
    played = play(story)
    known = {one.change_hash: one for one in reversed(played.receipts)}
    for some in (*([change] for change in played.changes), played.changes):
        expected = reconcile(REGISTER, merge(some), known, story_context())
        assert settle_changes(REGISTER, some, known, story_context()) == expected


def test_the_usual_register_takes_the_short_way() -> None:
    ops = [Op(key="~bulk", value=f"B{EIGHT_MS}"), *(Op(key=pupil, value=f"P{EIGHT_MS}") for pupil in PUPILS)]
    change = encode(actor=PHONE.actor, seq=1, start_op=1, time_s=1_795_334_400, deps=[], ops=sorted(ops, key=str))
    day = Context(roster=frozenset(PUPILS), zone=ZONE, window=DAY, entitled={"amal": (Right(from_ms=0),)})
    signed_ms = DAY.opens_ms + EIGHT_MS + 20_000
    for received_ms in (signed_ms + 900, signed_ms + 40 * 3_600_000):  # at once; two days later
        clock = ClockEvidence(
            wall_ms=signed_ms, mono_ms=65_000, session=change.actor[:8], beacon=(signed_ms - 5, 64_000)
        )
        receipt = Receipt(
            change_hash=change.hash,
            device=PHONE.device,
            user_id="amal",
            received_at_ms=received_ms,
            offset=1,
            clock=clock,
        )
        assert plain_outcome(REGISTER, change, receipt, day) is not None
