"""Visible marks when some changes do not count, and the provisional answer."""

from __future__ import annotations

import pytest

from clientcore.change import Change
from clientcore.history import merge
from reconciliation.conflicts import Sight, provisional, visible_puts
from reconciliation.model import Capture, Confidence, Timeliness, VisibleMark
from tests.support.histories import DAY, Phone


def phones(*names: str) -> list[Phone]:
    return [Phone(label=name, user=name) for name in names]


def values(found: dict[str, list], key: str = "s1") -> list[str]:  # type: ignore[type-arg]
    return [put.value for put in found.get(key, [])]


def mark(value: str) -> VisibleMark:
    captured = Capture(at_ms=0, interval=(0, 0), confidence=Confidence.LOW, clock_flag=False)
    return VisibleMark(
        value=value,
        user_id="u",
        change_hash=value.encode(),
        received_at_ms=DAY.opens_ms,
        captured=captured,
        timeliness=Timeliness.ON_TIME,
    )


@pytest.mark.parametrize(
    ("seen", "chosen", "disputed"),
    [
        (["A1"], "A1", False),
        (["A1", "A2"], "A2", False),
        (["E1:sick", "E2:travel"], "E2:travel", False),
        (["A1", "E2:sick"], "E2:sick", True),
        (["P1", "A2"], "P1", True),
        (["A1", "L2:5"], "L2:5", True),
        (["P1", "L2:5", "U3"], "L2:5", True),
        (["D1", "S2"], "D1", True),
        (["X1", "A2", "E3:sick"], "X1", True),
    ],
)
def test_the_provisional_answer(seen: list[str], chosen: str, disputed: bool) -> None:
    """Never absent where a witness marked presence; else the winner. Identical codes are no dispute."""
    found, doubtful = provisional([mark(value) for value in seen])
    assert (found.value, doubtful) == (chosen, disputed)


def test_a_held_mark_hides_nobody() -> None:
    """What the held change had replaced comes back."""
    amal, omar = phones("amal", "omar")
    first = amal.mark({"s1": "P1"})
    omar.learn([first])
    held = omar.mark({"s1": "A2"})
    assert values(visible_puts(merge([first, held]), {first.hash})) == ["P1"]


def test_who_wrote_over_a_held_mark_has_also_replaced_what_it_hid() -> None:
    """The teacher saw the held mark, not her first one beneath it; her second answers alone."""
    amal, omar = phones("amal", "omar")
    first = amal.mark({"s1": "P1"})
    omar.learn([first])
    held = omar.mark({"s1": "A2"})
    amal.learn([held])
    second = amal.mark({"s1": "L3:4"})
    history = merge([first, held, second])
    assert values(visible_puts(history, {first.hash, second.hash})) == ["L3:4"]


def test_leaving_changes_out_brings_back_what_they_superseded_or_deleted() -> None:
    """A mark over another, and the dropping of a loser: each is undone when its change does not count."""
    amal, basma, omar = phones("amal", "basma", "omar")
    first = amal.mark({"s1": "P1"})
    basma.learn([first])
    by_amal, by_basma = amal.mark({"s1": "A2"}), basma.mark({"s1": "L3:4"})
    omar.learn([first, by_amal, by_basma])
    kept = omar.keep_winner("s1")
    assert kept is not None
    history = merge([first, by_amal, by_basma, kept])

    def left(*out: Change) -> list[str]:
        shown = visible_puts(history, history.merged.keys() - {one.hash for one in out})
        return sorted(values(shown)) if shown else []

    assert len(left()) == 1
    assert left(kept) == ["A2", "L3:4"]
    assert left(kept, by_amal) == ["L3:4"]
    assert left(kept, by_amal, by_basma) == ["P1"]
    assert left(first, kept, by_amal, by_basma) == []


def test_a_held_mark_of_one_pupil_replaces_nothing_for_another() -> None:
    """Going on from a held change elsewhere in the register does not confirm it."""
    amal, omar = phones("amal", "omar")
    first = amal.mark({"s1": "P1"})
    omar.learn([first])
    held = omar.mark({"s1": "A2"})
    amal.learn([held])
    second = amal.mark({"s2": "P3"})
    found = visible_puts(merge([first, held, second]), {first.hash, second.hash})
    assert (values(found), values(found, "s2")) == (["P1"], ["P3"])


def test_the_loser_a_held_delete_dropped_comes_back_but_not_for_who_built_on_it() -> None:
    """A held re-affirmation drops nothing; a counted mark over it replaces all its author could know of."""
    amal, basma, omar = phones("amal", "basma", "omar")
    one, two = amal.mark({"s1": "P1"}), basma.mark({"s1": "A2"})
    omar.learn([one, two])
    dropped = omar.keep_winner("s1")
    assert dropped is not None
    counted = {one.hash, two.hash}
    assert set(values(visible_puts(merge([one, two, dropped]), counted))) == {"P1", "A2"}
    amal.learn([two, dropped])
    last = amal.mark({"s1": "E3:sick"})
    assert values(visible_puts(merge([one, two, dropped, last]), counted | {last.hash})) == ["E3:sick"]


def test_a_key_with_nothing_but_held_marks_is_not_visible() -> None:
    """No counted mark: no key, so the pupil is not taken."""
    amal, omar = phones("amal", "omar")
    held = omar.mark({"s1": "A2"})
    amal.learn([held])
    first = amal.mark({"s2": "P1"})
    assert visible_puts(merge([held, first]), {first.hash}).keys() == {"s2"}


def test_a_counted_delete_that_kept_a_held_mark_leaves_the_pupil_untaken() -> None:
    """Whoever chose the held mark has answered with it: until it is released there is no answer, never a guess."""
    amal, omar = phones("amal", "omar")
    first, held = amal.mark({"s1": "P1"}), omar.mark({"s1": "A2"})
    winner = merge([first, held]).visible()["s1"][-1].change_hash
    chooser = amal if winner == held.hash else omar
    chooser.learn([first, held])
    kept = chooser.keep_winner("s1")
    assert kept is not None
    assert visible_puts(merge([first, held, kept]), {first.hash, held.hash, kept.hash} - {winner}) == {}


def test_a_counted_delete_of_a_held_mark_does_not_replace_what_that_mark_hid() -> None:
    """Dropping a loser is no mark: whose mark the loser had hidden is heard again beside the one that was kept."""
    amal, basma, omar = phones("amal", "basma", "omar")
    first, other = amal.mark({"s1": "A1"}), basma.mark({"s1": "P2", "s2": "P2", "s3": "P2"})
    omar.learn([first])
    held = omar.mark({"s1": "U3"})
    chooser = phones("chooser")[0]
    chooser.learn([first, other, held])
    shown = chooser.history().visible()["s1"]
    dropped = chooser.keep_winner("s1")
    assert dropped is not None
    assert {put.value for put in shown} == {"P2", "U3"}
    found = visible_puts(merge([first, other, held, dropped]), {first.hash, other.hash, dropped.hash})
    assert "A1" in values(found)


def test_sight_is_all_that_was_seen_however_far_back() -> None:
    """What an author had in sight reaches all the way down and holds the change itself; it never looks forward."""
    amal, basma = phones("amal", "basma")
    one = amal.mark({"s1": "P1"})
    two = amal.mark({"s1": "P2"})
    basma.learn([one, two])
    three = basma.mark({"s1": "P3"})
    apart = phones("omar")[0].mark({"s1": "A1"})
    changes = [three, apart, two, one]
    sight = Sight(merge(changes))

    def seen(*by: bytes) -> set[bytes]:
        return {change.hash for change in changes if sight.has(sight.of(by), change.hash)}

    assert seen() == set()
    assert seen(two.hash) == {one.hash, two.hash}
    assert seen(three.hash) == {one.hash, two.hash, three.hash}
    assert seen(one.hash, apart.hash) == {one.hash, apart.hash}
