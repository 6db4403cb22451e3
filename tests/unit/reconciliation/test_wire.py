"""Outcomes as plain data: small, the same for equal outcomes, readable again; anything else is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from clientcore.history import merge
from reconciliation.errors import BadOutcome
from reconciliation.model import Outcome, first_receipts
from reconciliation.reconcile import reconcile
from reconciliation.wire import canonical, readable
from tests.support.histories import EIGHT_MS, REGISTER, STRANGER, Phone, context, receipt


def outcome() -> Outcome:
    amal, basma = Phone(label="a", user="amal"), Phone(label="b", user="basma")
    omar = Phone(label="o", user="omar")
    one = amal.mark({"s1": f"A{EIGHT_MS}", "s2": f"E{EIGHT_MS}:sick", STRANGER: f"P{EIGHT_MS}"})
    two, his = basma.mark({"s1": f"P{EIGHT_MS}"}), omar.mark({"s1": f"U{EIGHT_MS}"})
    sent = [(one, amal), (two, basma), (his, omar)]
    receipts = first_receipts(receipt(change, phone, offset=i) for i, (change, phone) in enumerate(sent))
    return reconcile(REGISTER, merge(change for change, _ in sent), receipts, context())


def test_an_outcome_survives_the_store() -> None:
    """Written as JSON and read again it is the same value and the same bytes."""
    found = outcome()
    data = canonical(found.to_wire())
    again = Outcome.from_wire(json.loads(data))
    assert again == found
    assert canonical(again.to_wire()) == data


def test_a_register_of_forty_takes_little_room() -> None:
    """Forty answers with their provenance stay below 5 kB before compression."""
    amal = Phone(label="a", user="amal")
    pupils = [f"s{10_000 + i}" for i in range(40)]
    change = amal.mark({pupil: f"P{EIGHT_MS + i * 1_300}" for i, pupil in enumerate(pupils)})
    found = reconcile(REGISTER, merge([change]), {change.hash: receipt(change, amal)}, context(roster=pupils))
    assert len(canonical(found.to_wire())) < 5_000


def test_an_outcome_in_words() -> None:
    """For people: a word for every pupil, also for the one nobody marked; both values of a dispute; why it is held."""
    found: Any = readable(outcome())
    assert {pupil: said["code"] for pupil, said in found["answers"].items()} == {
        "s1": "present",
        "s2": "absent_excused",
        "s3": "not_taken",
    }
    assert found["answers"]["s3"] == {"code": "not_taken", "disputed": False, "labels": [], "values": []}
    disputed = found["answers"]["s1"]
    assert (disputed["disputed"], disputed["user"]) == (True, "basma")
    assert {(value["user"], value["code"]) for value in disputed["values"]} == {
        ("amal", "absent"),
        ("basma", "present"),
    }
    assert found["answers"]["s2"]["captured_at"] == "2026-11-22T06:00:00.000Z"
    assert [(held["key"], held["why"]) for held in found["held"]] == [
        ("s1", "out-of-scope"),
        (STRANGER, "unknown-pupil"),
    ]
    assert sorted(said["why"] for said in found["changes"].values()) == ["disputed", "out-of-scope", "unknown-pupil"]
    json.dumps(found)


def broken() -> list[tuple[str, Any]]:
    good: dict[str, Any] = json.loads(canonical(outcome().to_wire()))
    cases: list[tuple[str, Any]] = [("no mapping", []), ("nothing", None), ("text", "outcome")]
    for key in good:
        less = copy.deepcopy(good)
        del less[key]
        cases.append((f"without {key}", less))
    for key, value in [
        ("v", 1),
        ("register", "eg-07-113"),
        ("occasion", "perhaps"),
        ("answers", {"s1": [[]]}),
        ("answers", {"s1": [[], 3, False, []]}),
        ("sources", [["zz", "amal", 1]]),
        ("changes", [["00", 9, None, None]]),
        ("held", [["s1"]]),
    ]:
        cases.append((f"{key} = {value}", {**good, key: value}))
    return cases


@pytest.mark.parametrize(("name", "data"), broken(), ids=[name for name, _ in broken()])
def test_what_is_no_outcome_is_refused(name: str, data: Any) -> None:
    """Every missing or foreign part gives the one typed error."""
    with pytest.raises(BadOutcome) as caught:
        Outcome.from_wire(data)
    assert caught.value.code == "bad-outcome"
