"""Orders about tokens: who of the offices and programs may speak to this server. Each is the operator's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from syncserver.access import ApiRole, Args, Desk, Order, every_school, roles, text
from syncserver.errors import RequestProblem
from syncserver.store import audit
from syncserver.store.port import Reader
from syncserver.tokens import SCOPE_ALL, SCOPE_DISTRICT, SCOPE_SCHOOLS, TOKEN_ROLES, digest_of, make_token

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_SCHOOLS_MAX = 2_000


async def order_grant(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`name`, `role`, and one of `schools` (ids), `district`, `all` (true); `reason`. The token is shown this once."""
    name, role = text(args, "name"), text(args, "role")
    if _NAME.fullmatch(name) is None:
        raise RequestProblem("bad-request", "a name is 1 to 40 of a-z 0-9 . _ - (of an office or program, no person's)")
    if role not in TOKEN_ROLES:
        raise RequestProblem("bad-request", f"the role is one of {', '.join(sorted(TOKEN_ROLES))}")
    scope, district, schools = await _scope(desk.db, args)
    token = make_token(desk.ports)
    async with desk.db.transaction() as tx:
        if await tx.fetch_one("SELECT 1 FROM tokens WHERE name = ?", (name,)):
            raise RequestProblem("bad-request", f"{name} was granted before; a name belongs to one holder for ever")
        audit_id = await audit.record(
            tx,
            at_ms=desk.now_ms,
            actor=desk.who.actor,
            action="access-grant",
            subject=f"token:{name}",
            reason=str(args.get("reason") or ""),
            after={"role": role, "scope": scope, "district": district, "schools": schools},
        )
        await tx.execute(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?)",
            (name, digest_of(token), role, scope, district, desk.who.actor, desk.now_ms, audit_id),
        )
        await tx.executemany("INSERT INTO token_schools VALUES (?, ?)", [(name, school) for school in schools])
    return {"name": name, "role": role, "scope": scope, "district": district, "schools": schools, "token": token}


async def _scope(reader: Reader, args: Args) -> tuple[str, str | None, list[str]]:
    """Kind of the scope, district, schools; exactly one kind is asked for, and it exists."""
    given, district = args.get("schools") or [], args.get("district")
    if (bool(given) + (district is not None) + (args.get("all") is True)) != 1:
        raise RequestProblem("bad-request", "say one of: schools, district, all")
    if args.get("all") is True:
        return SCOPE_ALL, None, []
    if district is not None:
        name = text(args, "district")
        if await reader.fetch_one("SELECT 1 FROM places WHERE district = ?", (name,)) is None:
            raise RequestProblem("not-found", f"{name}: no school has this district")
        return SCOPE_DISTRICT, name, []
    if type(given) is not list or len(given) > _SCHOOLS_MAX or any(type(school) is not str for school in given):
        raise RequestProblem("bad-request", f"schools is a list of at most {_SCHOOLS_MAX} ids")
    for school in given:
        if await reader.fetch_one("SELECT 1 FROM schools WHERE school = ?", (school,)) is None:
            raise RequestProblem("not-found", f"{school}: no such school")
    return SCOPE_SCHOOLS, None, sorted(set(given))


async def order_list(desk: Desk, _: Args, __: bytes) -> dict[str, Any]:
    """Every token that was ever granted, without the token."""
    schools: dict[str, list[str]] = {}
    for name, school in await desk.db.fetch_all("SELECT name, school FROM token_schools ORDER BY name, school"):
        schools.setdefault(name, []).append(school)
    names = ("name", "role", "scope", "district", "made_by", "made_ms", "revoked_ms")
    rows = await desk.db.fetch_all(f"SELECT {', '.join(names)} FROM tokens ORDER BY name")
    return {"tokens": [{**dict(zip(names, row, strict=True)), "schools": schools.get(row[0], [])} for row in rows]}


async def order_withdraw(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`name`, `reason`: from now on the token opens nothing. What its holder decided stands."""
    name, reason = text(args, "name"), text(args, "reason")
    async with desk.db.transaction() as tx:
        row = await tx.fetch_one("SELECT revoked_ms FROM tokens WHERE name = ?", (name,))
        if row is None:
            raise RequestProblem("not-found", f"{name}: no such token")
        revoked_ms = desk.now_ms if row[0] is None else row[0]
        await tx.execute("UPDATE tokens SET revoked_ms = ? WHERE name = ?", (revoked_ms, name))
        await audit.record(
            tx,
            at_ms=desk.now_ms,
            actor=desk.who.actor,
            action="access-revoke",
            subject=f"token:{name}",
            reason=reason,
            before={"revoked_ms": row[0]},
            after={"revoked_ms": revoked_ms},
        )
    return {"name": name, "revoked_ms": revoked_ms}


ORDERS: Mapping[str, Order] = {
    "access-grant": Order(run=order_grant, roles=roles(), about=every_school),
    "access-list": Order(run=order_list, roles=roles(ApiRole.AUDITOR), about=every_school),
    "access-revoke": Order(run=order_withdraw, roles=roles(), about=every_school),
}
