"""A campaign is continued where it stopped, and what it writes reads back the same."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.simulator.campaign import main, read, seeds_left
from tests.simulator.crew import ChildBroken, play_all
from tests.simulator.ledger import Violation
from tests.simulator.record import Job, Record
from tests.simulator.summary import Summary, in_words
from tests.simulator.world import Size

TINY = Size(days=1, schools=1, teachers=1, pupils=1)
JOB = Job(seed=7, profile="cairo-4g-good", size=TINY, only=("net.drop",), saboteur=None)
RECORD = Record(
    job=JOB,
    cpu_s=0.5,
    violations=(Violation(invariant="I6", at_ms=12, detail="an event twice"),),
    digest="ab",
    school_days=1,
    registers=2,
    faults=Counter({"net.drop": 3}),
    checks=Counter({"I10": 1, "I2": 4}),
    lateness_ms=(1_000, 90_000),
    bytes_up=900,
    tail=("1 server begins",),
)


def run(file: Path, *words: str) -> Result:
    """The campaign over small worlds of one day."""
    size = ["--days", "1", "--schools", "1", "--devices", "1", "--pupils", "4"]
    return CliRunner().invoke(main, ["--out", str(file), "--jobs", "1", *size, *words])


def test_a_record_survives_its_line() -> None:
    """What is written is what is read, violations and counters included."""
    again = Record.from_json(RECORD.to_json())
    assert again == RECORD
    assert again.faults.total() == 3


def test_a_campaign_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A second run plays only seeds that are not in the file; a line cut short by a kill is played again."""
    file = tmp_path / "campaign.jsonl"
    first = run(file, "--school-days", "2")
    assert first.exit_code == 0, first.output
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    kept = [record.job.seed for record in read(file)]
    assert kept == list(range(1, len(whole.splitlines())))
    second = run(file, "--school-days", str(len(kept) + 3), "--json")
    assert second.exit_code == 0, second.output
    records = read(file)
    assert whole.startswith(b"".join(record.to_json().encode() + b"\n" for record in records[: len(kept)]))
    assert [record.job.seed for record in records] == list(range(1, len(records) + 1))
    told = json.loads(second.stdout.splitlines()[-1])
    assert told["school_days"] == len(records) >= len(kept) + 3
    assert told["faults_in_all"] == sum(record.faults.total() for record in records) > 0


def test_a_violation_in_the_file_is_not_forgotten(tmp_path: Path) -> None:
    """A campaign whose file holds a violation ends with 1 and names the replay, though nothing more is played."""
    file = tmp_path / "campaign.jsonl"
    file.write_text(RECORD.to_json() + "\n")
    ended = run(file, "--school-days", "1")
    assert ended.exit_code == 1
    assert "an event twice" in ended.output
    assert "hudur simulate cairo-4g-good --seed 7 --days 1" in ended.output


def test_a_line_that_is_no_record_is_refused(tmp_path: Path) -> None:
    """Only the last line may be cut short; anything else is another file."""
    file = tmp_path / "other.jsonl"
    file.write_text("no json\n" + RECORD.to_json() + "\n")
    with pytest.raises(ValueError, match="Expecting value"):
        read(file)


def test_the_time_limit_ends_it(tmp_path: Path) -> None:
    """With no time left nothing is played."""
    ended = run(tmp_path / "campaign.jsonl", "--school-days", "1000", "--minutes", "0", "--json")
    assert json.loads(ended.stdout.splitlines()[-1])["worlds"] == 0


def test_seeds_go_up_and_pass_over_what_is_known() -> None:
    """Seeds in the file are not played again."""
    assert list(islice(seeds_left(3, {4, 6}), 4)) == [3, 5, 7, 8]


def test_a_world_that_does_not_end_is_a_finding() -> None:
    """The process of a world that is over its processor time is ended; the next world plays on in another."""
    big = Job(seed=1, profile="cairo-4g-good", size=Size(days=300, schools=4, teachers=4, pupils=40))
    found = {record.job: record for record in play_all([big, JOB], processes=1, cpu_s=2)}
    assert [seen.invariant for seen in found[big].violations] == ["I7"]
    assert "does not end" in found[big].violations[0].detail
    assert found[JOB].violations == ()
    assert found[JOB].school_days == 1


def test_a_laboratory_that_does_not_start_is_told() -> None:
    """An unknown saboteur ends the process before its first world: an error, not a violation."""
    with pytest.raises(ChildBroken, match="no-such-bug"):
        list(play_all([Job(seed=1, profile="cairo-4g-good", size=TINY, saboteur="no-such-bug")], processes=1))


def test_totals_are_sums() -> None:
    """Two worlds add up; percentiles are over all changes; I2 stands before I10."""
    summary = Summary.of([RECORD, RECORD])
    plain = summary.to_plain()
    assert (plain["worlds"], plain["faults_in_all"], plain["bytes_up_per_register"]) == (2, 6, 450)
    assert list(plain["checks"]) == ["I2", "I10"]
    assert plain["lateness_ms"] == {"p50": 90_000, "p95": 90_000, "max": 90_000}
    assert len(plain["violations"]) == 2


@pytest.mark.parametrize(
    ("duration_ms", "words"),
    [(850, "850 ms"), (12_300, "12.3 s"), (90_000, "1.5 min"), (7_200_000, "2.0 h"), (259_200_000, "3.0 d")],
)
def test_durations_are_said_as_people_say_them(duration_ms: int, words: str) -> None:
    """One unit, one decimal."""
    assert in_words(duration_ms) == words
