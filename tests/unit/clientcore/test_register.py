"""The words of the domain: what is a register, a mark, a key, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clientcore.errors import BadInput, ChangeRefused
from clientcore.register import (
    Code,
    Mark,
    RegisterId,
    is_bulk_value,
    is_date,
    is_id,
    is_key,
    is_session,
    is_session_value,
    is_value,
)

SESSIONS = ["day", *(f"{shift}{period}" for shift in ("am", "pm") for period in range(1, 9))]


@pytest.mark.parametrize("session", SESSIONS)
def test_a_register_id_reads_back(session: str) -> None:
    """Text and parts agree, for every session there is."""
    text = f"eg-07-113/c-3a/2026-11-22/{session}"
    register = RegisterId.parse(text)
    assert str(register) == text
    assert register == RegisterId("eg-07-113", "c-3a", "2026-11-22", session)
    assert register.within_school == f"c-3a/2026-11-22/{session}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b/2026-11-22",
        "a/b/2026-11-22/day/x",
        "/b/2026-11-22/day",
        "a//2026-11-22/day",
        "a b/c/2026-11-22/day",
        "أ/c/2026-11-22/day",
        "a/c/2026-02-30/day",
        "a/c/2026-1-1/day",
        "a/c/20261122/day",
        "a/c/٢٠٢٦-11-22/day",
        "a/c/2026-11-22/night",
        "a/c/2026-11-22/am9",
        "a/c/2026-11-22/",
        "a/" + "c" * 37 + "/2026-11-22/day",
        "a/c/0000-11-22/day",
    ],
)
def test_what_is_no_register_is_refused_in_words(text: str) -> None:
    """A missing part, a date that does not exist, another script: each is a BadInput that says what is expected."""
    with pytest.raises(BadInput) as refusal:
        RegisterId.parse(text)
    assert refusal.value.code == "bad-register"


def test_registers_sort_by_school_class_date_and_session() -> None:
    """Lists of registers have one order."""
    ids = [RegisterId.parse(f"s/c/2026-11-{day}/{session}") for day in (22, 21) for session in ("pm1", "am2")]
    assert [str(one) for one in sorted(ids)] == sorted(str(one) for one in ids)


@given(
    st.sampled_from(Code),
    st.integers(-(10**13) + 1, 10**13 - 1),
    st.none() | st.from_regex(r"[a-z0-9_]{1,24}", fullmatch=True),
)
def test_a_mark_reads_back(code: Code, captured_ms: int, reason: str | None) -> None:
    """Every mark of the grammar survives its text form."""
    mark = Mark(code=code, captured_ms=captured_ms, reason=reason)
    assert Mark.parse(str(mark)) == mark
    assert is_value(b"s1", str(mark).encode())


@pytest.mark.parametrize("text", ["", "P", "P-0", "P01", "Q1", "p1", "P1:", "P1:SICK", "P1 ", "P1\n", "P1:" + "a" * 25])
def test_what_is_no_mark_is_refused(text: str) -> None:
    """The grammar leaves one spelling for each mark."""
    with pytest.raises(ChangeRefused) as refusal:
        Mark.parse(text)
    assert refusal.value.code == "bad-mark"
    assert not is_value(b"s1", text.encode())


def test_codes_have_words_and_say_whether_somebody_was_seen() -> None:
    """A witness of presence is never shown as absent: late, left early and duty count as seen."""
    assert [code.word for code in Code][:3] == ["present", "late", "left_early"]
    assert {code for code in Code if code.witnesses_presence} == {
        Code.PRESENT,
        Code.LATE,
        Code.LEFT_EARLY,
        Code.OFFICIAL_DUTY,
    }


@pytest.mark.parametrize(
    ("key", "value", "good"),
    [
        (b"~bulk", b"B28800000", True),
        (b"~bulk", b"B-1", True),
        (b"~bulk", b"B-0", False),
        (b"~bulk", b"B1:x", False),
        (b"~bulk", b"P1", False),
        (b"~session", b"H1", True),
        (b"~session", b"N1:strike", True),
        (b"~session", b"N1", False),
        (b"~session", b"N-0:strike", False),
        (b"~session", b"H-0", False),
        (b"~session", b"\xff", False),
        (b"s1", b"B1", False),
        (b"s1", b"P1:" + b"a" * 46, False),
    ],
)
def test_a_value_belongs_to_its_key(key: bytes, value: bytes, good: bool) -> None:
    """Pupils have marks; the register's own keys have theirs."""
    assert is_key(key)
    assert is_value(key, value) is good


def test_words_of_the_register_itself() -> None:
    """The helpers behind screens and rules say the same as the codec."""
    assert is_bulk_value("B5")
    assert not is_bulk_value("H5")
    assert is_session_value("H5")
    assert not is_session_value("B5")
    assert [is_id("s1"), is_id("~s1"), is_id("")] == [True, False, False]
    assert [is_session("am8"), is_session("am0")] == [True, False]
    assert [is_date("2024-02-29"), is_date("2023-02-29"), is_date("2024-2-9")] == [True, False, False]
