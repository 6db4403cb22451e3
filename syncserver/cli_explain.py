"""`hudur explain`: why one pupil's answer is what it is."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.text import Text

from syncserver.cli import _order, _print, json_option, store_option


@click.command("explain")
@click.argument("register")
@click.argument("pupil")
@click.option("--lang", type=click.Choice(("ar", "en", "both")), default="both", show_default=True)
@store_option
@json_option
def explain(register: str, pupil: str, lang: str, store: str, as_json: bool) -> None:
    """Tell how the official code of PUPIL (an id) in REGISTER (school/class/date/session) came about.

    From the taps with their clocks and receipts, over rules and people's decisions, to what was told downstream.
    """
    found = _order(store, "explain", {"register": register, "pupil": pupil})
    languages = ("ar", "en") if lang == "both" else (lang,)

    def show(told: dict[str, Any], console: Console) -> None:
        revision = "not settled yet" if told["revision"] is None else f"revision {told['revision']}"
        console.print(Text(f"{told['register']}  {told['pupil']}  {told['code'].replace('_', ' ')}  ({revision})"))
        for number, step in enumerate(told["steps"], 1):
            for language in languages:
                console.print(
                    Text(f"{number:>3}. {step[language]}" if language == languages[0] else f"     {step['en']}")
                )

    _print(found, as_json, show)
