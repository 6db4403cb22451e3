"""What downstream is told: recorded, amended, withdrawn; nothing twice, nothing edited."""

from __future__ import annotations

import json

from clientcore.change import Change
from clientcore.history import merge
from reconciliation.events import AMENDED, RECORDED, WITHDRAWN, Event, event_state, events
from reconciliation.model import Context, Outcome, first_receipts
from reconciliation.reconcile import reconcile
from reconciliation.wire import canonical, iso
from tests.support.histories import DAY, EIGHT_MS, REGISTER, Phone, context, receipt

NOW = DAY.opens_ms + EIGHT_MS + 700_000


def settled(*sent: tuple[Change, Phone], around: Context | None = None) -> Outcome:
    receipts = first_receipts(receipt(change, phone, offset=i) for i, (change, phone) in enumerate(sent))
    return reconcile(REGISTER, merge(change for change, _ in sent), receipts, around or context())


def told(*outcomes: Outcome) -> list[list[Event]]:
    revisions: dict[str, int] = {}
    previous, found = None, []
    for outcome in outcomes:
        batch, revisions = events(previous, outcome, revisions, time_ms=NOW)
        found.append(batch)
        previous = outcome
    return found


def amal() -> Phone:
    return Phone(label="a", user="amal")


def test_the_first_answer_is_recorded_and_the_untaken_are_not_told() -> None:
    """One event for the one pupil who was marked, in CloudEvents' words."""
    phone = amal()
    (batch,) = told(settled((phone.mark({"s1": f"E{EIGHT_MS}:sick"}), phone)))
    (event,) = batch
    assert event.to_wire() == {
        "specversion": "1.0",
        "id": f"{REGISTER}/s1/1",
        "source": "/schools/eg-07-113",
        "type": RECORDED,
        "subject": f"{REGISTER}/s1",
        "time": "2026-11-22T06:11:40.000Z",
        "datacontenttype": "application/json",
        "dataschema": f"/v1/schemas/{RECORDED}.json",
        "data": {
            "register": str(REGISTER),
            "school": "eg-07-113",
            "class": "c-3a",
            "date": "2026-11-22",
            "session": "day",
            "pupil": "s1",
            "code": "absent_excused",
            "reason": "sick",
            "minutes_late": None,
            "captured_at": "2026-11-22T06:00:00.000Z",
            "captured_between": ["2026-11-22T06:00:00.000Z", "2026-11-22T06:00:00.000Z"],
            "clock_confidence": "medium",
            "received_at": "2026-11-22T06:10:00.000Z",
            "timeliness": "on_time",
            "disputed": False,
            "labels": [],
            "revision": 1,
        },
    }
    json.dumps(event.to_wire())


def test_minutes_late_are_a_number() -> None:
    """For *late* the reason is the minutes; a reason that is no number stays a reason."""
    phone = amal()
    (batch,) = told(
        settled((phone.mark({"s1": f"L{EIGHT_MS}:12", "s2": f"L{EIGHT_MS}:bus", "s3": f"L{EIGHT_MS}"}), phone))
    )
    assert [(e.data["minutes_late"], e.data["reason"]) for e in batch] == [(12, None), (None, "bus"), (None, None)]


def test_the_same_outcome_again_tells_nothing() -> None:
    """Settling twice is silent."""
    phone = amal()
    outcome = settled((phone.mark({"s1": f"P{EIGHT_MS}"}), phone))
    assert told(outcome, outcome)[1] == []


def test_a_correction_is_an_amendment_that_names_what_it_supersedes() -> None:
    """The first event stays as it was; the second says what changed and what it was before."""
    phone = amal()
    first = phone.mark({"s1": f"A{EIGHT_MS}", "s2": f"P{EIGHT_MS}"})
    second = phone.mark({"s1": f"L{EIGHT_MS + 60_000}:5"})
    recorded, amended = told(settled((first, phone)), settled((first, phone), (second, phone)))
    assert [event.id for event in recorded] == [f"{REGISTER}/s1/1", f"{REGISTER}/s2/1"]
    (event,) = amended
    assert (event.type, event.id, event.data["supersedes"]) == (AMENDED, f"{REGISTER}/s1/2", f"{REGISTER}/s1/1")
    assert event.data["changed"] == ["captured_at", "captured_between", "code", "minutes_late"]
    assert (event.data["previous"]["code"], event.data["code"], event.data["minutes_late"]) == ("absent", "late", 5)


def test_an_answer_that_goes_away_is_withdrawn_and_may_come_back() -> None:
    """No session after a mark was told: withdrawn, never silently gone; the next answer goes on counting."""
    phone = amal()
    first = phone.mark({"s1": f"P{EIGHT_MS}"})
    none = phone.mark({"~session": f"N{EIGHT_MS}:strike"})
    held = phone.mark({"~session": f"H{EIGHT_MS + 1}"})
    sent = [(first, phone), (none, phone), (held, phone)]
    batches = told(settled(*sent[:1]), settled(*sent[:2]), settled(*sent))
    assert [[(e.type, e.revision) for e in batch] for batch in batches] == [
        [(RECORDED, 1)],
        [(WITHDRAWN, 2)],
        [(AMENDED, 3)],
    ]
    gone = batches[1][0].data
    assert "code" not in gone
    assert (gone["pupil"], gone["previous"]["code"], gone["supersedes"]) == ("s1", "present", f"{REGISTER}/s1/1")
    assert "previous" in batches[2][0].data
    assert batches[2][0].data["previous"] == {}
    assert event_state(batches[0] + batches[1]) == {}
    assert event_state(e for batch in batches for e in batch)["s1"]["code"] == "present"


def test_a_pupil_who_leaves_the_roster_is_withdrawn() -> None:
    """The roster of the day was corrected: the mark is held now, and downstream hears of it."""
    phone = amal()
    change = phone.mark({"s1": f"P{EIGHT_MS}"})
    _, batch = told(settled((change, phone)), settled((change, phone), around=context(roster=("s2",))))
    assert [(e.type, e.pupil) for e in batch] == [(WITHDRAWN, "s1")]


def test_a_second_opinion_amends_even_when_the_code_stays() -> None:
    """That an answer became disputed is news; that a loser of a dispute changed is not."""
    one, two = amal(), Phone(label="b", user="basma")
    present, absent = one.mark({"s1": f"P{EIGHT_MS}"}), two.mark({"s1": f"A{EIGHT_MS}"})
    excused = two.mark({"s1": f"E{EIGHT_MS + 1}:sick"})
    sent = [(present, one), (absent, two), (excused, two)]
    batches = told(settled(*sent[:1]), settled(*sent[:2]), settled(*sent))
    assert batches[1][0].data["changed"] == ["disputed"]
    assert batches[2] == []


def test_telling_again_after_a_crash_gives_the_same_bytes() -> None:
    """From the stored previous outcome and revisions the same events come out."""
    phone = amal()
    first, second = phone.mark({"s1": f"A{EIGHT_MS}"}), phone.mark({"s1": f"P{EIGHT_MS + 1}"})
    before, after = settled((first, phone)), settled((first, phone), (second, phone))
    stored = Outcome.from_wire(json.loads(canonical(before.to_wire())))
    revisions = json.loads(canonical({"s1": 1}))
    once, numbers = events(before, after, {"s1": 1}, time_ms=NOW)
    again, numbers_again = events(stored, after, revisions, time_ms=NOW)
    assert [canonical(e.to_wire()) for e in once] == [canonical(e.to_wire()) for e in again]
    assert numbers == numbers_again == {"s1": 2}


def test_times_are_written_with_milliseconds_in_utc() -> None:
    """RFC 3339, always three decimals, always Z."""
    assert [iso(0), iso(1), iso(NOW)] == [
        "1970-01-01T00:00:00.000Z",
        "1970-01-01T00:00:00.001Z",
        "2026-11-22T06:11:40.000Z",
    ]
