"""`hudur access`, `hudur held`, `hudur release`, `hudur delegations`: who may speak, what waits, who lets it in.

A decision about people's work is no operator's: `hudur release` speaks with the token of its holder (HUDUR_TOKEN).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import click
from rich.console import Console

from syncserver.access import ApiRole, Desk, give
from syncserver.cli import _do, _order, _print, _table, json_option, store_option
from syncserver.config import Config, StoreAddress, store_address
from syncserver.errors import StoreInUse
from syncserver.operator import Operator
from syncserver.orders import ORDERS
from syncserver.ports import ServerPorts
from syncserver.store.open import open_store
from syncserver.tokens import TOKEN_ROLES, holder_of

TOKEN_VARIABLE = "HUDUR_TOKEN"  # never an argument: a command line is seen by everybody on the machine
_SHORT = 16  # hex digits of a change that name it in its register and fit a table


# ---- tokens -----------------------------------------------------------------------------------------------------


@click.group("access")
def access() -> None:
    """Tokens of offices and programs. People of a school need none: they speak with their phone."""


@access.command("grant")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(sorted(role.value for role in TOKEN_ROLES)))
@click.option("--school", "schools", multiple=True, help="May speak about this school; repeat for several.")
@click.option("--district", help="May speak about the schools of this district.")
@click.option("--all", "every", is_flag=True, help="May speak about every school.")
@click.option("--reason", default="", help="For the audit.")
@store_option
@json_option
def access_grant(
    name: str,
    role: str,
    schools: tuple[str, ...],
    district: str | None,
    every: bool,
    reason: str,
    store: str,
    as_json: bool,
) -> None:
    """Grant NAME (of an office or program, for ever) a token. It is shown this once and stored nowhere."""
    if bool(schools) + (district is not None) + every != 1:
        raise click.UsageError("say one of --school, --district, --all")
    args: dict[str, Any] = {"name": name, "role": role, "reason": reason}
    args |= {"all": True} if every else {"district": district} if district is not None else {"schools": [*schools]}

    def show(made: dict[str, Any], console: Console) -> None:
        console.print(f"{made['name']}: {made['role']}, {_scope(made)}")
        click.echo(made["token"])
        console.print("Write it down now: it cannot be shown again.")

    _print(_order(store, "access-grant", args), as_json, show)


@access.command("list")
@store_option
@json_option
def access_list(store: str, as_json: bool) -> None:
    """List every token that was ever granted, without the token."""

    def show(value: dict[str, Any], console: Console) -> None:
        rows = [
            (one["name"], one["role"], _scope(one), _when(one["made_ms"]), _when(one["revoked_ms"]))
            for one in value["tokens"]
        ]
        console.print(_table(("name", "role", "schools", "granted", "revoked"), rows))

    _print(_order(store, "access-list", {}), as_json, show)


@access.command("revoke")
@click.argument("name")
@click.option("--reason", required=True)
@store_option
@json_option
def access_revoke(name: str, reason: str, store: str, as_json: bool) -> None:
    """Take the token of NAME back. What its holder decided stands."""
    done = _order(store, "access-revoke", {"name": name, "reason": reason})
    _print(done, as_json, lambda one, con: con.print(f"{one['name']}: revoked since {_when(one['revoked_ms'])}"))


def _scope(one: Mapping[str, Any]) -> str:
    if one["scope"] == "schools":
        return ", ".join(one["schools"])
    return "every school" if one["scope"] == "all" else f"district {one['district']}"


def _when(at_ms: int | None) -> str:
    zone = ZoneInfo(os.environ.get("HUDUR_ZONE", "Africa/Cairo"))
    return "" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, tz=zone).strftime("%Y-%m-%d %H:%M")


# ---- held work --------------------------------------------------------------------------------------------------


@click.command("held")
@click.argument("school")
@store_option
@json_option
def held(school: str, store: str, as_json: bool) -> None:
    """List what is stored and waits at SCHOOL, the oldest first: why, since when, by whom, who can let it in."""

    def show(value: dict[str, Any], console: Console) -> None:
        rows = [
            (
                one["register"].partition("/")[2],
                one["change"][:_SHORT],
                one["cause"],
                one["by"],
                _when(one["received_ms"]),
                f"{one['age_ms'] / 3_600_000:.0f} h",
                len(one["marks"]),
                one["who"],
            )
            for one in value["held"]
        ]
        console.print(_table(("register", "change", "cause", "by", "arrived", "age", "marks", "who can open it"), rows))
        if value["more"]:
            console.print("There are more; these are the oldest.")

    _print(_order(store, "held", {"school": school}), as_json, show)


@click.command("release")
@click.argument("register")
@click.argument("change")
@click.option("--reason", required=True, help="Why this change shall count; for the audit.")
@click.option("--reference", default="", help="The decision it rests on.")
@click.option("--undo", is_flag=True, help="Hold it again.")
@store_option
@json_option
def release(register: str, change: str, reason: str, reference: str, undo: bool, store: str, as_json: bool) -> None:
    """Let the held CHANGE (hex, as `hudur held` shows it) of REGISTER count. Needs HUDUR_TOKEN of a central office.

    Champions release on their phone. Nobody releases work of their own.
    """
    args = {"register": register, "change": change, "reason": reason, "reference": reference}
    done = _order_as_holder(store, "release-undo" if undo else "release", args)
    word = "counts from the next settling on" if done["released"] else "is held again"
    _print(done, as_json, lambda one, con: con.print(f"{one['register']}: {one['change'][:_SHORT]} {word}"))


def _order_as_holder(store: str, order: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Give an order in the name of the token in HUDUR_TOKEN, through the running server or on the store itself."""
    token, address = os.environ.get(TOKEN_VARIABLE), store_address(store)
    if not token:
        able = ", ".join(sorted(ORDERS[order].roles - {ApiRole.CHAMPION}))
        raise click.ClickException(f"set {TOKEN_VARIABLE} to a token with the role {able}; champions use their phone")

    async def work() -> dict[str, Any]:
        try:
            return await _on_store(address, token, order, args)
        except StoreInUse:
            async with Operator.connect(address, {"HUDUR_OPERATOR_TOKEN": token}) as server:
                return await server.call(order, args)

    result: dict[str, Any] = _do(work)
    return result


async def _on_store(address: StoreAddress, token: str, order: str, args: Mapping[str, Any]) -> dict[str, Any]:
    db = await open_store(address)
    try:
        desk = Desk(config=Config(store=address), db=db, ports=ServerPorts(), who=await holder_of(db, token))
        return await give(ORDERS[order], desk, args)
    finally:
        await db.close()


# ---- delegations ------------------------------------------------------------------------------------------------


@click.command("delegations")
@click.argument("school")
@click.option("--running", is_flag=True, help="Only those that are not over.")
@store_option
@json_option
def delegations(school: str, running: bool, store: str, as_json: bool) -> None:
    """List who stands in for whom at SCHOOL, the latest first. Delegations are made on a phone."""

    def show(value: dict[str, Any], console: Console) -> None:
        rows = [
            (
                one["id"],
                one["class"],
                one["by"],
                one["to"],
                _when(one["from_ms"]),
                _when(one["until_ms"]),
                _when(one["ended_ms"]),
                one["reason"],
            )
            for one in value["delegations"]
        ]
        console.print(_table(("id", "class", "by", "to", "from", "until", "ended", "reason"), rows))

    _print(_order(store, "delegations", {"school": school, "running": running}), as_json, show)
