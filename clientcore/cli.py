"""`hudur device`: a device on the command line, for champions' computers, relays, tests and simulations.

Exit codes: 0 done; 1 refused (by the server, or by this machine's disk); 2 the command was not understood or the device
is not enrolled; 3 no answer came or the server asked to wait: the work is safe here, run `sync` again.
"""

from __future__ import annotations

import asyncio
import json
import platform
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from clientcore import report
from clientcore.advice import REFUSED, exit_code, explain
from clientcore.bundles import frame_name, read_result, rescue, split_bundle
from clientcore.device import BUNDLES_PATH, Device
from clientcore.enrolment import parse_target
from clientcore.errors import BadInput, HudurError
from clientcore.frame import read_bundle, write_bundle
from clientcore.home import Home, Settings
from clientcore.log import read_foreign
from clientcore.ports import Clock, Network, Random, SystemClock, SystemRandom
from clientcore.register import Code, is_session
from clientcore.take import Wish, parse_list
from clientcore.taking import take_register

BUNDLE_FILE_BYTES_MAX = 64 << 20
LABEL_MAX = 40
_CLOCK_BEHIND_MS = 12 * 3_600_000
T = TypeVar("T")


class ClosingNetwork(Network, Protocol):
    """A network whose connections are closed at the end of a command."""

    async def close(self) -> None:
        """Close the connections."""
        ...


def _host_name() -> str:
    """Two computers of one person must not look like one that was wiped, so each carries its own name."""
    return platform.node()[:LABEL_MAX] or "computer"


def _http(url: str, clock: Clock) -> ClosingNetwork:
    from clientcore.http import HttpNetwork  # reading httpx takes longer than most commands

    return HttpNetwork(url, clock)


@dataclass(frozen=True, slots=True)
class Doors:
    """The ports a command uses; `click`'s `obj`, so that tests bring their own."""

    clock: Clock = field(default_factory=SystemClock)
    random: Random = field(default_factory=SystemRandom)
    network: Callable[[str, Clock], ClosingNetwork] = _http


@dataclass(frozen=True, slots=True)
class _Opened:
    device: Device
    network: ClosingNetwork

    def talk(self, act: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run one conversation to its end."""

        async def run() -> T:
            try:
                return await act()
            finally:
                await self.network.close()

        return asyncio.run(run())


@click.group()
@click.pass_context
def device(context: click.Context) -> None:
    """A device: takes registers offline and sends them when it can.

    Exit codes: 0 done, 1 refused, 2 not understood or not enrolled, 3 no answer (the work is safe on this device).
    """
    if not isinstance(context.obj, Doors):
        context.obj = Doors()


_home = click.option(
    "--home",
    "home_path",
    required=True,
    envvar="HUDUR_HOME",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory this device lives in (or set HUDUR_HOME).",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@contextmanager
def _said(as_json: bool) -> Iterator[None]:
    """Errors leave as three sentences (or JSON) and an exit code."""
    try:
        yield
    except HudurError as error:
        told = explain(error)
        if as_json:
            click.echo(json.dumps({"ok": False, "error": error.code, **told}, ensure_ascii=False))
        else:
            for sentence in told.values():
                click.echo(sentence, err=True)
        sys.exit(exit_code(error))


def _open(doors: Doors, home: Home, server: str) -> _Opened:
    network = doors.network(server, doors.clock)
    device_ = Device(
        log=home.open_log(at_ms=doors.clock.wall_ms()),
        cache=home.open_cache(),
        key=home.key(),
        clock=doors.clock,
        random=doors.random,
        network=network,
    )
    return _Opened(device_, network)


def _enrolled(doors: Doors, home: Home) -> tuple[_Opened, Settings]:
    settings = home.settings()
    opened = _open(doors, home, settings.server)
    opened.device.journal.adopt(settings.enrolment)
    return opened, settings


def _print(as_json: bool, told: dict[str, Any], lines: list[str]) -> None:
    if as_json:
        click.echo(json.dumps(told, ensure_ascii=False))
    else:
        for line in lines:
            click.echo(line)


@device.command()
@_home
@click.option("--server", default=None, help="Address of the server, e.g. https://hudur.example.eg")
@click.option("--code", required=True, help="BCD-FGHJ-KLM, SCHOOL.CODE, or the whole link …/#e=SCHOOL.CODE")
@click.option("--school", default=None, help="School id, when the code does not carry it.")
@click.option("--label", default=_host_name, help="How the champion sees this device (40 characters) [host name].")
@_json
@click.pass_obj
def enrol(
    doors: Doors, home_path: Path, server: str | None, code: str, school: str | None, label: str, as_json: bool
) -> None:
    """Make this device act for the person a code was made for."""
    with _said(as_json):
        target = parse_target(code, school=school, server=server)
        if len(label) > LABEL_MAX:
            raise BadInput("bad-label", f"the label has at most {LABEL_MAX} characters")
        home = Home(home_path)
        home.prepare()
        opened = _open(doors, home, target.server)
        held = opened.device.state.enrolment
        forgotten = opened.device.state.last_outcome == "unknown-device"  # a server restored from before our enrolment
        if held is not None and home.has_settings and not forgotten:
            raise BadInput("already-enrolled", f"this home is the device of {held.user_id}, {held.school}; use another")
        if held is None or forgotten:
            with home.uploading():
                opened.talk(lambda: opened.device.enrol(school=target.school, code=target.code, label=label))
            held = opened.device.state.enrolment
        assert held is not None
        settings = Settings(server=target.server, enrolment=held)
        home.put_settings(settings)
        told = {"ok": True, **report.status(opened.device, settings)}
        lines = ["Enrolled. Compare the device's number with the champion's screen."]
        lines += [*report.status_lines(opened.device, settings), *report.class_lines(opened.device)]
        _print(as_json, told, lines)


@device.command()
@_home
@click.option("--class", "class_id", required=True, help="Class id (see `classes`).")
@click.option("--date", default=None, help="YYYY-MM-DD; today in the school's zone unless given.")
@click.option("--session", default=None, help="day, am1-am8 or pm1-pm8; the calendar's only one unless given.")
@click.option("--absent", default="", metavar="ID,…", help="Absent, reason not known.")
@click.option("--late", default="", metavar="ID[:MIN],…", help="Late, with the minutes if known.")
@click.option("--excused", default="", metavar="ID:REASON,…", help="Absent with an excuse, e.g. s12:sick.")
@click.option("--unexcused", default="", metavar="ID[:REASON],…", help="Absent without an excuse.")
@click.option("--left-early", default="", metavar="ID[:REASON],…", help="Left early.")
@click.option("--duty", default="", metavar="ID[:REASON],…", help="On official duty.")
@click.option("--suspended", default="", metavar="ID[:REASON],…", help="Suspended.")
@_json
@click.pass_obj
def take(
    doors: Doors, /, home_path: Path, class_id: str, date: str | None, session: str | None, as_json: bool, **lists: str
) -> None:
    """Take a register: who is named is marked so, the rest present. Taking it again corrects it."""
    with _said(as_json):
        wishes = _wishes(lists)
        opened, settings = _enrolled(doors, Home(home_path))
        mine = opened.device
        register = mine.register(class_id, date or _today(mine, doors.clock), session or _session(mine))
        taken = take_register(mine, register, wishes)
        told = {"ok": True, **report.taken(taken), **report.status(mine, settings)}
        _print(as_json, told, report.taken_lines(mine, taken))


def _wishes(lists: dict[str, str]) -> dict[str, Wish]:
    codes = {
        "absent": Code.ABSENT,
        "late": Code.LATE,
        "excused": Code.ABSENT_EXCUSED,
        "unexcused": Code.ABSENT_UNEXCUSED,
        "left_early": Code.LEFT_EARLY,
        "duty": Code.OFFICIAL_DUTY,
        "suspended": Code.SUSPENDED,
    }
    wishes: dict[str, Wish] = {}
    for name, text in lists.items():
        for pupil, wish in parse_list(text, codes[name]).items():
            if pupil in wishes:
                raise BadInput("bad-list", f"{pupil} stands in two lists")
            wishes[pupil] = wish
    return wishes


def _today(opened: Device, clock: Clock) -> str:
    server_ms = opened.state.server_ms
    if server_ms is not None and clock.wall_ms() < server_ms - _CLOCK_BEHIND_MS:
        raise BadInput("clock", "this machine's clock is behind what the server last said; set it, or give --date")
    return opened.today()


def _session(opened: Device) -> str:
    calendar = opened.cache.calendar()
    sessions = calendar.sessions if calendar else ("day",)
    if len(sessions) != 1 or not is_session(sessions[0]):
        raise BadInput("bad-session", f"name the --session: one of {', '.join(sessions)}")
    return sessions[0]


@device.command()
@_home
@click.option("--tries", default=1, show_default=True, type=click.IntRange(1, 100), help="Requests before giving up.")
@click.option("--confirm/--no-confirm", default=True, help="Wait 3 s and ask once more for the confirmation.")
@_json
@click.pass_obj
def sync(doors: Doors, home_path: Path, tries: int, confirm: bool, as_json: bool) -> None:
    """Send what waits and fetch what is new."""
    with _said(as_json):
        home = Home(home_path)
        opened, settings = _enrolled(doors, home)
        with home.uploading():
            done = opened.talk(lambda: opened.device.sync_until_answered(tries=tries, confirm=confirm))
        refused = done.changes["refused"] > 0
        told = {
            "ok": done.outcome == "ok" and not refused,
            **report.synced(done),
            **report.status(opened.device, settings),
        }
        _print(as_json, told, [*report.synced_lines(done), *report.step_lines(opened.device)])
        if done.error is not None:
            sys.exit(exit_code(done.error))
        if refused:
            sys.exit(REFUSED)


@device.command()
@_home
@_json
@click.pass_obj
def status(doors: Doors, home_path: Path, as_json: bool) -> None:
    """What is saved here, what was sent, what is confirmed."""
    with _said(as_json):
        opened, settings = _enrolled(doors, Home(home_path))
        _print(as_json, report.status(opened.device, settings), report.status_lines(opened.device, settings))


@device.command()
@_home
@_json
@click.pass_obj
def registers(doors: Doors, home_path: Path, as_json: bool) -> None:
    """All registers of this device, newest day first."""
    with _said(as_json):
        opened, _ = _enrolled(doors, Home(home_path))
        _print(as_json, {"registers": report.registers(opened.device)}, report.register_lines(opened.device))


@device.command()
@_home
@click.option("--class", "class_id", default=None, help="Show this class's pupils.")
@_json
@click.pass_obj
def classes(doors: Doors, home_path: Path, class_id: str | None, as_json: bool) -> None:
    """The classes of this device and their pupils."""
    with _said(as_json):
        opened, _ = _enrolled(doors, Home(home_path))
        told = report.classes(opened.device, class_id)
        _print(as_json, {"classes": told}, report.class_lines(opened.device, class_id))


@device.group()
def bundle() -> None:
    """Unsent work in a file."""


@bundle.command("export")
@_home
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--all", "everything", is_flag=True, help="Also frames the server already answered.")
@_json
@click.pass_obj
def bundle_export(doors: Doors, home_path: Path, file: Path, everything: bool, as_json: bool) -> None:
    """Write what waits here into FILE, for a champion to hand in. It also stays here."""
    with _said(as_json):
        opened, _ = _enrolled(doors, Home(home_path))
        frames = opened.device.frames_to_carry(everything=everything)
        if frames:
            try:
                with file.open("xb") as out:
                    out.write(write_bundle(frames))
            except FileExistsError:
                raise BadInput("file-exists", f"{file} exists already; name another") from None
            except OSError as failed:
                raise BadInput("bad-file", f"{file}: {failed.strerror}") from None
        line = f"Frames written to {file}: {len(frames)}." if frames else "Nothing waits here; no file was written."
        _print(as_json, {"ok": True, "frames": len(frames), "file": str(file) if frames else None}, [line])


@bundle.command("import")
@_home
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@_json
@click.pass_obj
def bundle_import(doors: Doors, home_path: Path, file: Path, as_json: bool) -> None:
    """Hand FILE, another device's bundle, to the server through this device."""
    with _said(as_json):
        if file.stat().st_size > BUNDLE_FILE_BYTES_MAX:
            raise BadInput("log-limits", f"{file} is larger than any bundle")
        found = read_bundle(file.read_bytes())
        told, lines = _hand_in(doors, Home(home_path), list(found.frames))
        told["truncated"] = found.truncated
        if found.truncated:
            lines.append("The file was cut short; its whole frames were taken. Ask for it again.")
        _print(as_json, told, lines)
        if told["refused"]:
            sys.exit(REFUSED)


@device.command("import-log")
@_home
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@_json
@click.pass_obj
def import_log(doors: Doors, home_path: Path, file: Path, as_json: bool) -> None:
    """Rescue FILE, a log exported from a phone: hand in what the server has not answered yet."""
    with _said(as_json):
        home = Home(home_path)
        found = rescue(read_foreign(file), home.settings().enrolment)
        told, lines = _hand_in(doors, home, list(found.frames))
        told |= report.rescued(found)
        _print(as_json, told, [*lines, *report.rescued_lines(found)])
        if told["refused"]:
            sys.exit(REFUSED)


def _hand_in(doors: Doors, home: Home, frames: list[bytes]) -> tuple[dict[str, Any], list[str]]:
    """Frames through this device's own call, in as many bundles as they need."""
    opened, _ = _enrolled(doors, home)
    groups = split_bundle(frames)

    async def run() -> list[bytes]:
        return [
            await opened.device.call(
                "bundle", [write_bundle(group)], path=BUNDLES_PATH, frames=[frame_name(raw) for raw in group]
            )
            for group in groups
        ]

    with home.uploading():
        results = [read_result(data) for data in opened.talk(run)]
    return report.handed_in(results), report.handed_in_lines(results)
