"""The rules of attendance, told as a school would tell them.

Each story is played by the real server: people tap on phones, decide, and ask what is official. The words are those of
the school; `Huda` and `Nadia` are the school's champions, everybody else is introduced by the story.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tests.support.story import CODES, SCHOOL, Story, a_school, moment_ms

FIVE = ("Amal", "Basma", "Hassan", "Karim", "Mina")
CLASS_OF_40 = tuple(f"p{number:02d}" for number in range(1, 41))


async def test_two_shifts_share_a_building_and_neither_answers_for_the_other(tmp_path: Path) -> None:
    """The morning shift ends at noon, the evening shift begins at half past twelve; each has registers of its own."""
    async with a_school(
        tmp_path,
        classes={"morning-class": FIVE, "evening-class": ("Sara", "Tarek")},
        teachers={"Adel": ["morning-class"], "Dina": ["evening-class"]},
        sessions="am1 pm1",
    ) as school:
        await school.central_office(
            "timetable", **{"from": "2026-09-20", "to": "2027-05-27", "reference": "letter 4", "scope": "menoufia"},
            sessions=[["am1", "07:30", "11:30", "12:30"], ["pm1", "12:30", "16:30", "17:30"]],
        )  # fmt: skip

        school.it_is("2026-11-22 07:40")
        await school.takes_the_register("Adel", "morning-class", "2026-11-22", {"Hassan": "absent"}, session="am1")
        await school.sends("Adel")
        morning = await school.official("morning-class", "2026-11-22", session="am1")
        assert (morning["Amal"], morning["Hassan"]) == ("present", "absent")

        # Nobody is absent from a shift that has not begun, and the morning says nothing about the evening.
        evening = await school.official("evening-class", "2026-11-22", session="pm1")
        assert set(evening.values()) == {"not taken"}

        school.it_is("2026-11-22 12:45")
        await school.takes_the_register("Dina", "evening-class", "2026-11-22", session="pm1")
        await school.sends("Dina")
        sara = await school.about("evening-class", "2026-11-22", "Sara", session="pm1")
        assert (sara["code"], sara["timeliness"]) == ("present", "on_time")

        # A quarter to one is late for the morning register: that would be an adjustment now, and it waits.
        await school.takes_the_register(
            "Adel", "morning-class", "2026-11-22", {"Amal": "absent"}, session="am1", only=["Amal"]
        )
        await school.sends("Adel")
        assert (await school.official("morning-class", "2026-11-22", session="am1"))["Amal"] == "present"


async def test_the_sixth_of_october_is_declared_a_holiday_on_the_day_after(tmp_path: Path) -> None:
    """Registers were taken that morning. They stay, under a label; nobody who stayed at home becomes absent by it."""
    async with a_school(tmp_path, classes={"3a": FIVE, "3b": ("Sara",)}, teachers={"Adel": ["3a", "3b"]}) as school:
        await school.central_office(
            "calendar", date="2026-10-06", open=True, reason="moved_holiday", reference="letter 11", scope="*"
        )
        school.it_is("2026-10-06 08:00")
        await school.takes_the_register("Adel", "3a", "2026-10-06", {"Karim": "absent"})
        await school.sends("Adel")
        assert (await school.about("3a", "2026-10-06", "Karim"))["labels"] == set()

        school.it_is("2026-10-07 11:00")
        await school.central_office(
            "calendar", date="2026-10-06", open=False, reason="armed_forces_day", reference="letter 12", scope="*"
        )
        karim = await school.about("3a", "2026-10-06", "Karim")
        assert (karim["code"], karim["labels"]) == ("absent", {"calendar"})
        assert (await school.official("3b", "2026-10-06"))["Sara"] == "not taken"

        # Whoever keeps other records was told of the label, pupil by pupil, and of nothing else.
        told = await school.told_downstream("2026-10-06")
        assert told.count(("recorded", "Karim", "absent")) == 1
        assert told.count(("amended", "Karim", "absent")) == 1
        assert not [one for one in told if one[1] == "Sara"]

        # A school cannot declare a holiday of its own.
        problem = await school.is_refused(
            "Huda", "calendar", date="2026-10-08", open=False, reason="local_feast", reference="none"
        )
        assert problem["type"] in ("/problems/forbidden", "/problems/rule")


async def test_in_ramadan_the_day_is_shorter_and_nobody_is_late_or_absent_by_that(tmp_path: Path) -> None:
    """From nine to one instead of half past seven to half past one, and no sixth period."""
    async with a_school(tmp_path, classes={"3a": FIVE}, teachers={"Adel": ["3a"]}, sessions="am1 am6") as school:
        usual = [["am1", "07:30", "08:15", "09:00"], ["am6", "12:30", "13:30", "14:00"]]
        await school.central_office(
            "timetable", **{"from": "2026-09-20", "to": "2027-05-27"}, reference="letter 4", scope="*", sessions=usual
        )
        await school.central_office(
            "timetable", **{"from": "2027-02-08", "to": "2027-03-09"}, kind="ramadan", reference="letter 30",
            provisional=True, scope="*", sessions=[["am1", "09:00", "09:35", "10:30"]],
        )  # fmt: skip

        # The week before: at a quarter past nine the first register is closed.
        school.it_is("2027-02-07 09:15")
        await school.takes_the_register("Adel", "3a", "2027-02-07", session="am1")
        await school.sends("Adel")
        assert set((await school.official("3a", "2027-02-07", session="am1")).values()) == {"not taken"}

        # The first week of Ramadan: the same quarter past nine is on time.
        school.it_is("2027-02-09 09:15")
        await school.takes_the_register("Adel", "3a", "2027-02-09", {"Mina": "late"}, session="am1")
        await school.sends("Adel")
        amal = await school.about("3a", "2027-02-09", "Amal", session="am1")
        assert (amal["code"], amal["timeliness"]) == ("present", "on_time")
        # Late is who was called late, nobody else.
        codes = await school.official("3a", "2027-02-09", session="am1")
        assert [pupil for pupil, code in codes.items() if code == "late"] == ["Mina"]

        # The sixth period does not exist in Ramadan: it is not missed, and nobody is absent from it.
        assert await school.sessions_expected("2027-02-07") == ("am1", "am6")
        assert await school.sessions_expected("2027-02-09") == ("am1",)
        assert set((await school.official("3a", "2027-02-09", session="am6")).values()) == {"not taken"}


async def test_a_substitute_for_one_morning(tmp_path: Path) -> None:
    """Mr Adel is ill. Huda asks Mrs Dina to take his class until noon; it takes seconds and works without a network."""
    async with a_school(
        tmp_path, classes={"3a": FIVE, "5b": ("Sara",)}, teachers={"Adel": ["3a"], "Dina": ["5b"]}
    ) as school:
        await school.phone_of("Dina")
        school.it_is("2026-11-22 07:20")
        await school.decides(
            "Huda", "delegate", classes=["3a"], to="Dina", reason="cover period",
            **{"from": "2026-11-22T07:00", "until": "2026-11-22T12:00"},
        )  # fmt: skip

        # She marks in the morning, without a network, and her phone finds one the next day.
        school.it_is("2026-11-22 08:05")
        await school.takes_the_register("Dina", "3a", "2026-11-22", {"Karim": "absent"})
        school.it_is("2026-11-23 07:30")
        await school.sends("Dina")
        assert await school.official("3a", "2026-11-22") == dict.fromkeys(FIVE, "present") | {"Karim": "absent"}
        karim = await school.about("3a", "2026-11-22", "Karim")
        assert karim["timeliness"] == "late_arrival"

        # The next day the class is not hers any more: what she marks is kept, shown, and counts for nothing.
        school.it_is("2026-11-23 08:05")
        await school.takes_the_register("Dina", "3a", "2026-11-23", {"Amal": "absent"})
        await school.sends("Dina")
        assert set((await school.official("3a", "2026-11-23")).values()) == {"not taken"}
        held = await school.decides("Huda", "held")
        assert [(one["cause"], one["by"]) for one in held["held"]] == [("out-of-scope", "Dina")]

        # A delegation cannot be passed on, and not for two weeks.
        problem = await school.is_refused(
            "Huda", "delegate", classes=["3a"], to="Dina", reason="illness",
            **{"from": "2026-11-23T07:00", "until": "2026-12-10T12:00"},
        )  # fmt: skip
        assert problem["type"] == "/problems/rule"
        assert problem["who"]


async def test_a_teacher_who_left_at_ten_had_marked_at_ten_to_ten_and_sends_at_two(tmp_path: Path) -> None:
    """What comes after somebody left is kept and shown. It counts when a named person says so, and not before."""
    async with a_school(tmp_path, classes={"3a": FIVE}, teachers={"Adel": ["3a"], "Gamal": ["3a"]}) as school:
        await school.phone_of("Gamal")
        school.it_is("2026-11-22 09:50")
        await school.takes_the_register("Gamal", "3a", "2026-11-22", {"Hassan": "absent"})

        school.it_is("2026-11-22 10:00")
        await school.ends("Gamal")

        school.it_is("2026-11-22 14:00")
        await school.brings_the_phone_of("Gamal")
        assert set((await school.official("3a", "2026-11-22")).values()) == {"not taken"}
        assert await school.told_downstream("2026-11-22") == []
        (held,) = (await school.decides("Huda", "held"))["held"]
        assert (held["cause"], held["by"]) == ("revoked", "Gamal")

        await school.decides(
            "Huda",
            "release",
            register=held["register"],
            change=held["change"],
            reason="I saw him take it",
        )
        assert (await school.official("3a", "2026-11-22"))["Hassan"] == "absent"
        assert ("recorded", "Hassan", "absent") in await school.told_downstream("2026-11-22")


async def test_a_twin_is_registered_twice(tmp_path: Path) -> None:
    """Hassan and Hussein are twins, and Hassan is on the list a second time. His second row is nobody: never there."""
    async with a_school(
        tmp_path, classes={"3a": ("Hassan", "Hussein", "Hassan-2")}, teachers={"Adel": ["3a"]}
    ) as school:
        school.it_is("2026-11-22 08:00")
        await school.takes_the_register("Adel", "3a", "2026-11-22", {"Hassan-2": "absent"})
        await school.sends("Adel")
        assert (await school.official("3a", "2026-11-22"))["Hassan-2"] == "absent"

        school.it_is("2026-11-22 11:00")
        await school.decides("Huda", "pupil-merge", alias="Hassan-2", canonical="Hassan", reason="entered twice")
        after = await school.official("3a", "2026-11-22")
        assert after == {"Hassan": "present", "Hussein": "present"}
        assert not (await school.about("3a", "2026-11-22", "Hassan"))["disputed"]
        # Downstream the absence of the row that was nobody is taken back.
        assert ("withdrawn", "Hassan-2", None) in await school.told_downstream("2026-11-22")

        # Nadia takes the brother for another duplicate. It is undone the next day, and nothing was lost by it.
        wrong = await school.decides("Nadia", "pupil-merge", alias="Hussein", canonical="Hassan", reason="same family")
        assert set(await school.official("3a", "2026-11-22")) == {"Hassan"}
        school.it_is("2026-11-23 09:00")
        await school.decides("Huda", "pupil-merge-undo", merge=wrong["merge"], reason="they are twins")
        assert await school.official("3a", "2026-11-22") == after

        # After seventy-two hours the first merge cannot be undone at school any more; the refusal says by whom.
        school.it_is("2026-11-26 09:00")
        first = (await school.decides("Huda", "pupil-merges"))["merges"]
        merge = next(one["merge"] for one in first if one["alias"] == "Hassan-2")
        problem = await school.is_refused("Huda", "pupil-merge-undo", merge=merge, reason="too late")
        assert problem["type"] == "/problems/rule"
        assert "central" in problem["who"]
        assert problem["closed_on"]


# ---- paper ------------------------------------------------------------------------------------------------------

WEEKS = ("2026-11-21", "2026-11-28", "2026-12-05", "2026-12-12")


def school_days(week: str) -> list[str]:
    """Sunday to Thursday of the week that begins on this Saturday."""
    day = int(moment_ms(week + " 12:00"))
    return [_date(day + number * 86_400_000) for number in range(1, 6)]


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).date().isoformat()


def sheet(class_id: str, day: str, marks: dict[str, str]) -> list[str]:
    """The signed sheet of one class and day: only who was not simply present; without anybody, one empty line."""
    rows = [
        f"{SCHOOL},{class_id},{day},day,period_sheet,teacher,{pupil},{CODES[word]}" for pupil, word in marks.items()
    ]
    return rows or [f"{SCHOOL},{class_id},{day},day,period_sheet,teacher,,"]


async def types_in(school: Story, lines: list[str]) -> None:
    """The office types sheets in."""
    head = "school,class,date,session,document,signed_by,pupil,code"
    await school.operator("paper-import", "\n".join([head, *lines, ""]).encode())


async def lives_a_week(
    school: Story, week: str, *, wrong: int = 0, absent: str = "p03", typed: bool = True, days: int = 5
) -> list[str]:
    """A week of class 3a by phone and on paper; `wrong` pupils of the first day are absent on the phone alone."""
    lines: list[str] = []
    for number, day in enumerate(school_days(week)[:days]):
        school.it_is(f"{day} 08:0{number}")
        mistaken = dict.fromkeys(CLASS_OF_40[10 : 10 + wrong], "absent") if number == 0 else {}
        await school.takes_the_register("Adel", "3a", day, {absent: "absent", **mistaken})
        await school.sends("Adel")
        lines += sheet("3a", day, {absent: "absent"})
    if typed:
        await types_in(school, lines)
    return lines


async def judged(school: Story, week: str) -> dict[str, object]:
    """The week is over, and so are the three working days for its corrections; what is said of it then."""
    last = school_days(week)[-1]
    school.it_is(_date(moment_ms(last + " 12:00") + 7 * 86_400_000) + " 01:00")
    await school.operator("parity-evaluate")
    view = await school.operator("parity", school=SCHOOL)
    return next(one for one in view["weeks"] if one["week"] == week)


async def test_a_paper_sheet_is_found_a_week_later(tmp_path: Path) -> None:
    """Thursday's sheet was missing when the week was judged. When it is typed in, the week is judged anew."""
    async with a_school(tmp_path, classes={"3a": CLASS_OF_40}, teachers={"Adel": ["3a"]}) as school:
        lines = await lives_a_week(school, WEEKS[0], typed=False)
        await types_in(school, [line for line in lines if "2026-11-26" not in line])
        assert (await judged(school, WEEKS[0]))["status"] == "not_evaluable"

        school.it_is("2026-12-06 10:00")
        await types_in(school, [line for line in lines if "2026-11-26" in line])
        school.it_is("2026-12-07 01:00")
        await school.operator("parity-evaluate")
        view = await school.operator("parity", school=SCHOOL)
        assert [one["status"] for one in view["weeks"] if one["week"] == WEEKS[0]] == ["passed"]
        assert "1 of 4" in view["gate"]["words"]["en"]


async def test_a_week_that_was_copied_is_left_out_and_nobody_is_named(tmp_path: Path) -> None:
    """The same forty taps, to the millisecond, on every day: such registers prove nothing; the week cannot pass."""
    async with a_school(tmp_path, classes={"3a": CLASS_OF_40}, teachers={"Adel": ["3a"]}) as school:
        phone = await school.phone_of("Adel")
        for day in school_days(WEEKS[0]):
            school.it_is(f"{day} 08:00")
            phone.hand.seed(1)
            await school.takes_the_register("Adel", "3a", day)
            await school.sends("Adel")
            await types_in(school, sheet("3a", day, {}))
        week = await judged(school, WEEKS[0])
        assert week["status"] == "not_evaluable"
        shown = await school.operator("parity", school=SCHOOL, week=WEEKS[0])
        standings = [one["standing"] for one in shown["registers"]]
        assert standings == [
            "compared",
            "excluded",
            "excluded",
            "excluded",
            "excluded",
        ]
        assert "Adel" not in str(shown)

        # A week in which "all present" was pressed and every sheet agrees is an honest week.
        for day in school_days(WEEKS[1]):
            school.it_is(f"{day} 08:00")
            now = school.world.clock.wall_ms() + 137 * (1 + int(day[-2:]))
            phone.mark(f"3a/{day}/day", {"~bulk": "B"} | dict.fromkeys(CLASS_OF_40, "P"), at_ms=now)
            school.world.clock.advance(5_000)
            await school.sends("Adel")
            await types_in(school, sheet("3a", day, {}))
        assert (await judged(school, WEEKS[1]))["status"] == "passed"


async def test_four_weeks_at_exactly_ninety_eight_percent_retire_the_paper(tmp_path: Path) -> None:
    """196 of 200 is 98.0 percent: enough. Nobody could have made it quicker, and nobody had to press anything."""
    async with a_school(tmp_path, classes={"3a": CLASS_OF_40}, teachers={"Adel": ["3a"]}) as school:
        for week in WEEKS:
            await lives_a_week(school, week, wrong=4)
        for number, week in enumerate(WEEKS, 1):
            seen = await judged(school, week)
            assert (seen["status"], seen["matched"], seen["compared"]) == ("passed", 196, 200)
            gate = await school.operator("gate", school=SCHOOL)
            assert gate["paper"] is (number < 4)
        assert "paper has retired" in gate["words"]["en"]


async def test_a_school_at_97_99_percent_keeps_its_paper(tmp_path: Path) -> None:
    """1,950 of 1,990 is a little less than 98 percent. Close is not enough, and what is missing is said in words."""
    classes = {f"c{number}": tuple(f"c{number}-{n}" for n in range(40 if number < 8 else 39)) for number in range(10)}
    async with a_school(tmp_path, classes=classes, teachers={"Adel": list(classes)}) as school:
        lines: list[str] = []
        for number, day in enumerate(school_days(WEEKS[0])):
            for place, class_id in enumerate(classes):
                school.it_is(f"{day} 08:{place * 3:02d}")
                mistaken = dict.fromkeys(classes[class_id][:4], "absent") if number == 0 else {}
                await school.takes_the_register("Adel", class_id, day, mistaken)
                lines += sheet(class_id, day, {})
            await school.sends("Adel")
        await types_in(school, lines)
        week = await judged(school, WEEKS[0])
        assert (week["status"], week["matched"], week["compared"]) == ("failed", 1_950, 1_990)
        gate = await school.operator("gate", school=SCHOOL)
        assert gate["paper"]
        assert "97.9%" in gate["words"]["en"]
