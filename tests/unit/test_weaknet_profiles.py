"""fixtures/weak-networks: the format, and a source for every number."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.weaknet.errors import ProfileRefused
from tests.weaknet.profile import FOLDER, KINDS, load, names, read_json
from tests.weaknet.provenance import basis_of, count_kinds, numbers, written
from tests.weaknet.reading import read_profile

SCHEMA = json.loads((FOLDER / "weaknet-1.schema.json").read_text())
SOURCES = json.loads((FOLDER / "SOURCES.json").read_text())
WANTED = {
    "after-school-home-wifi",
    "cairo-4g-good",
    "delta-3g-congested-morning",
    "dst-clock-chaos",
    "gprs-rooftop-once-a-day",
    "load-shedding-two-hours",
    "microbus-lte-handover",
    "minya-school-wifi-herd",
    "ramses-national-outage",
    "school-dsl-quota-spent",
    "shared-phone-two-teachers",
    "sim-balance-gone-portal",
    "sinai-night-window",
    "sinai-no-signal-weekly-courier",
    "upper-egypt-edge-rural",
    "zero-rated-proxy",
}


def edge() -> dict[str, Any]:
    return copy.deepcopy(read_json("upper-egypt-edge-rural"))


def test_all_proposed_schools_are_there() -> None:
    """The sixteen school profiles of the issue exist."""
    assert set(names()) >= WANTED


def test_the_schema_is_one() -> None:
    """The schema itself follows JSON Schema."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", names())
def test_a_profile_follows_the_schema_and_reads(name: str) -> None:
    """Schema and typed reading both take every profile, and its file is written as `written` would."""
    plain = read_json(name)
    assert [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(plain)] == []
    assert read_profile(plain) == load(name)
    assert (FOLDER / "profiles" / f"{name}.json").read_text() == written(plain)


@pytest.mark.parametrize("name", names())
def test_every_number_has_a_source(name: str) -> None:
    """Each numeric leaf lies under a basis whose references are in SOURCES.json; no basis stands for nothing."""
    plain = read_json(name)
    basis = plain["basis"]
    used = {basis_of(pointer, basis) for pointer in numbers(plain)}
    assert None not in used
    for pointer, one in basis.items():
        assert set(one["ref"]) <= set(SOURCES), pointer
        assert one["kind"] in KINDS
        assert one["kind"] == "assumed" or one["ref"] != ["none"], f"{pointer} is {one['kind']} by nobody"
        _at(plain, pointer)


def _at(plain: Any, pointer: str) -> Any:
    for step in pointer.strip("/").split("/"):
        plain = plain[int(step)] if isinstance(plain, list) else plain[step]
    return plain


def test_a_number_without_a_basis_is_refused() -> None:
    """Taking a basis away makes exactly its numbers homeless."""
    plain = edge()
    del plain["basis"]["/links/0/queue_kb"]
    with pytest.raises(ProfileRefused, match="/links/0/queue_kb") as refused:
        count_kinds(plain)
    assert refused.value.code == "no-basis"


def test_a_basis_covers_whole_steps_only() -> None:
    """`/links/1` does not speak for `/links/10`; the longest prefix wins."""
    basis = {"/links/1": 1, "/links/1/loss": 2}
    assert basis_of("/links/10/up_kbps", basis) is None
    assert basis_of("/links/1/loss/g2b", basis) == "/links/1/loss"
    assert basis_of("/links/1/lossy", basis) == "/links/1"


def test_every_source_is_used_or_ready_for_the_field() -> None:
    """SOURCES.json carries no dead entry; each has words, a place and a licence."""
    used = {ref for name in names() for one in read_json(name)["basis"].values() for ref in one["ref"]}
    assert set(SOURCES) - used == {"field"} - used
    assert all(set(one) == {"what", "where", "licence"} and all(one.values()) for one in SOURCES.values())


def test_the_readme_counts_what_the_files_hold() -> None:
    """The README's table of measured, derived and assumed numbers is computed from the profiles."""
    text = (FOLDER / "README.md").read_text()
    totals = dict.fromkeys(KINDS, 0)
    for name in names():
        counts = count_kinds(read_json(name))
        assert f"| `{name}` | {counts['measured']} | {counts['derived']} | {counts['assumed']} |" in text
        totals = {kind: totals[kind] + counts[kind] for kind in KINDS}
    row = f"| **all {len(names())}** | {totals['measured']} | {totals['derived']} | {totals['assumed']} |"
    assert row in text


def change(plain: dict[str, Any], pointer: str, value: Any) -> dict[str, Any]:
    *way, last = pointer.strip("/").split("/")
    place = plain
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = value
    return plain


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/format", "weaknet/2"),
        ("/colour", "red"),
        ("/links/0/colour", "red"),
        ("/links/0/dns_fail", 1.5),
        ("/links/0/dns_fail", True),
        ("/links/0/dns_fail", "0.1"),
        ("/links/0/tech", "5g"),
        ("/links/0/name", "device"),
        ("/links/0/up_kbps", {"q": {"0": 1, "50": 2}}),
        ("/links/0/up_kbps", {"q": {"0": 5, "100": 2}}),
        ("/links/0/up_kbps", {"q": {"0": 1, "0.0": 1, "100": 2}}),
        ("/links/0/up_kbps", {"q": {"0": -1, "100": 2}}),
        ("/links/0/up_kbps", {"trace": "t.csv", "column": "up", "scale": 1}),
        ("/links/0/cut/how", {"rst": 0.5}),
        ("/links/0/flap", {"on_s": 0.01, "off_s": 0.01}),
        ("/links/0/open", [{"days": "*", "from": "10:00", "to": "09:00"}]),
        ("/links/0/open", [{"days": "*", "from": "10:00", "to": "24:30"}]),
        ("/links/0/open", [{"days": "sun-", "from": "10:00", "to": "11:00"}]),
        ("/links/0/budget", {"bytes_per_day": 5, "then": "throttle"}),
        ("/device/people", 0),
        ("/device/clock/jumps", [{"day": 1, "at": "08:00", "why": "neither"}]),
        ("/span/tz", "Africa/Atlantis"),
        ("/span/days", 61),
        ("/excerpts/0/for_s", 121),
        ("/basis/~", {"kind": "assumed", "ref": ["none"]}),
        ("/basis/x", {"kind": "assumed", "ref": ["none"]}),
    ],
)
def test_reading_refuses_what_the_format_does_not_know(pointer: str, value: Any) -> None:
    """Each is refused with its place; nothing is guessed."""
    with pytest.raises(ProfileRefused) as refused:
        read_profile(change(edge(), pointer, value))
    assert refused.value.code == "bad-profile"
    assert refused.value.detail.startswith("/")


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    """A typing mistake shows what there is."""
    with pytest.raises(ProfileRefused, match="cairo-4g-good") as refused:
        load("cairo-5g")
    assert refused.value.code == "unknown-profile"


def test_nothing_but_plain_facts_of_the_repository() -> None:
    """No profile refers to a trace file; no source names a file that is not in the repository."""
    for name in names():
        assert "traces/" not in json.dumps(read_json(name))
    assert not [one["where"] for one in SOURCES.values() if ".csv" in one["where"] or "stats/" in one["where"]]
