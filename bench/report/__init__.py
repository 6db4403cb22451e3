"""`python -m bench report`: docs/performance.md and its pictures, from the texts of this folder and the stored results.

The texts are written by hand. A line that begins with `@` is replaced:

    @text push          the text `push.md`
    @goals              every goal of every benchmark with what was measured
    @table push: CPU    the rows of that group (without a group: all rows) as a table
    @chart push-latency the picture of that name
    @about push         where and when it was measured

What was not run is said to be not measured; no line of the page can show a figure that is not in a result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from bench.report.charts import draw
from bench.results import RESULTS, ROOT, Result, Row, number, read_result

TEXTS = Path(__file__).parent
PAGE = ROOT / "docs" / "performance.md"
ORDER = ("push", "settle", "wire", "growth", "store", "peers", "morning", "phone", "governorate")
NOT_MEASURED = "*Not measured.*"
BUSY_SHARE = 0.25  # of its cores, waited for before the run began
MET = {None: "", True: "met", False: "**missed**"}

Results = Mapping[str, Result]


def main() -> None:
    """Write the page and its pictures."""
    results = {name: found for name in ORDER if (found := read_result(name, RESULTS)) is not None}
    written = write_page(results, texts=TEXTS, page=PAGE)
    Console(width=140).print(f"{PAGE.relative_to(ROOT)}: {len(results)} benchmarks, {len(written)} pictures")


def write_page(results: Results, *, texts: Path, page: Path) -> list[Path]:
    """Write `page` from `texts/performance.md`; its pictures go to the folder of the page's name. Returns those."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    charts = {chart.name: chart for result in results.values() for chart in result.charts}
    written = []

    def picture(name: str) -> str:
        if name not in charts:
            return NOT_MEASURED
        path = folder / f"{name}.svg"
        path.write_bytes(draw(charts[name]))
        written.append(path)
        return f"![{charts[name].title}]({folder.name}/{name}.svg)"

    page.write_text(render("performance", results, texts=texts, picture=picture), "utf-8")
    for stale in set(folder.glob("*.svg")) - set(written):
        stale.unlink()
    return written


def render(name: str, results: Results, *, texts: Path, picture: Callable[[str], str]) -> str:
    """A text with its `@` lines replaced.

    Raises:
        ValueError: for a line that begins with `@` and means nothing.
    """
    lines = []
    for line in (texts / f"{name}.md").read_text("utf-8").splitlines():
        word, _, rest = line.partition(" ")
        if word == "@text":
            lines.append(render(rest, results, texts=texts, picture=picture).rstrip("\n"))
        elif word == "@goals":
            lines.append(goals(results))
        elif word == "@table":
            lines.append(table(results, *(part.strip() for part in rest.partition(":")[::2])))
        elif word == "@chart":
            lines.append(picture(rest))
        elif word == "@about":
            lines.append(about(results.get(rest)))
        elif word.startswith("@"):
            raise ValueError(f"{name}.md: {line}")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


# ---- the parts of the page --------------------------------------------------------------------------------------


def goals(results: Results) -> str:
    """Every figure that has a goal; a benchmark that was not run has one line that says so."""
    lines = ["| benchmark | figure | measured | goal | |", "|---|---|---|---|---|"]
    for name in ORDER:
        if name not in results:
            lines.append(f"| `{name}` | | not measured | | |")
            continue
        lines += [
            f"| `{name}` | {_named(row)} | {f'{number(row.value)} {row.unit}'.strip()} | {row.goal} | {MET[row.met]} |"
            for row in results[name].rows
            if row.goal is not None
        ]
    return "\n".join(lines)


def table(results: Results, name: str, group: str) -> str:
    """The rows of one group, or all of a benchmark's."""
    result = results.get(name)
    rows = [] if result is None else [row for row in result.rows if group in ("", row.group)]
    if not rows:
        return NOT_MEASURED
    has_goals, has_notes = any(row.goal for row in rows), any(row.note for row in rows)
    head = ["", "measured", *(["goal", ""] if has_goals else []), *(["how"] if has_notes else [])]
    lines = [_line(head), "|---|---:|" + "---|" * (len(head) - 2)]
    for row in rows:
        cells = [row.name, f"{number(row.value)} {row.unit}".strip()]
        cells += [str(row.goal or ""), MET[row.met]] if has_goals else []
        lines.append(_line([*cells, *([row.note] if has_notes else [])]))
    return "\n".join(lines)


def about(result: Result | None) -> str:
    """Where and when a benchmark was run."""
    if result is None:
        return NOT_MEASURED
    what = result.about
    state = f"`{what['commit']}`" + (" with changes not yet committed" if what["dirty"] else "")
    load = what.get("load_before")
    busy = load is not None and load > what["cores"] * BUSY_SHARE
    return (
        f"Measured {what['at']} at {state} by `{what['command']}`: {what['cpu']}, {what['cores']} cores, Linux "
        f"{what['kernel']}, Python {what['python']}, SQLite {what['sqlite']}; load of the machine before the run "
        f"{load}." + (" **The machine was busy with other work: rates and latencies here say little.**" if busy else "")
    )


def _named(row: Row) -> str:
    return f"{row.group}: {row.name}" if row.group else row.name


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
