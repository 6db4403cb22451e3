"""Orders about the school system: bring its roster in, see how things stand, send refused attendance again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from syncserver import nightly
from syncserver.access import ApiRole, Args, Desk, Order, every_school, number, roles, text
from syncserver.errors import ConfigError, RequestProblem
from syncserver.store import audit
from syncserver.store import upstream as rows
from syncserver.upstream.port import UpstreamSilent
from syncserver.upstream.pull import pull
from syncserver.upstream.rest import open_upstream

_CAUSE_CHARS_MAX = 40
_RUNS_TOLD = 10


async def order_pull(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`dry_run`, `allow_mass_ending`, `allow_vanished`: the roster as upstream has it now, whole or not at all."""
    try:
        async with open_upstream(desk.config, desk.ports) as upstream:
            return await pull(
                desk.db,
                desk.config,
                upstream,
                dry_run=args.get("dry_run") is True,
                now_ms=desk.now_ms,
                actor=desk.who.actor,
                allow_mass_ending=args.get("allow_mass_ending") is True,
                allow_vanished=args.get("allow_vanished") is True,
            )
    except ConfigError as missing:
        raise RequestProblem("not-found", missing.detail) from None
    except UpstreamSilent as silent:
        raise RequestProblem("busy", f"upstream does not answer: {silent.detail}", retry_after_s=60) from None


async def order_status(desk: Desk, _: Args, __: bytes) -> dict[str, Any]:
    """No arguments: how old the status feed is, how far attendance is, what was refused, the last import and nights."""
    state, sent = await rows.read_feed(desk.db), await rows.read_sent(desk.db)
    pulled = await rows.last_pull(desk.db)
    around = await nightly.surroundings(desk.db, desk.now_ms)
    return {
        "upstream": None if desk.config.upstream is None else urlsplit(desk.config.upstream.url).hostname,
        "feed": {
            **around["feed"],
            "looked_ms": None if state is None else state.looked_ms,
            "failures": 0 if state is None else state.failures,
            "ended": 0 if state is None else state.ended,
        },
        "attendance": {
            "sent_seq": sent.sent_seq,
            "waiting": around["lag"]["upstream_events"],
            "failures": sent.failures,
            "next_try_ms": sent.next_try_ms if sent.failures else None,
            "last_result": sent.last_result,
            "taken_ms": sent.taken_ms,
            "refused": around["dead_letters"]["upstream"],
        },
        "roster": None if pulled is None else {name: pulled[name] for name in ("at_ms", "made_by", "state", "digest")},
        "roster_behind": state is not None and pulled is not None and state.enrolments_ms > pulled["at_ms"],
        "nights": await rows.last_runs(desk.db, _RUNS_TOLD),
    }


async def order_requeue(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`id` of a refused event, `cause` for all of a kind, or `all` (true); `reason`: send them again."""
    reason = text(args, "reason")
    cause = None if args.get("cause") is None else text(args, "cause", chars_max=_CAUSE_CHARS_MAX)
    letter = None if args.get("id") is None else number(args, "id")
    if [letter is not None, cause is not None, args.get("all") is True].count(True) != 1:
        raise RequestProblem("bad-request", "say one of: id, cause, all")
    async with desk.db.transaction() as tx:
        meant = await rows.requeue(tx, letter=letter, cause=cause)
        if not meant and (letter is not None or cause is not None):
            raise RequestProblem("not-found", f"{cause or letter}: no refused event waits")
        causes = sorted({one for _, one in meant})
        await audit.record(
            tx,
            at_ms=desk.now_ms,
            actor=desk.who.actor,
            action="upstream-requeue",
            subject=f"upstream:{cause or letter or 'all'}",
            reason=reason,
            before={"state": rows.WAITING, "causes": causes},
            after={"state": rows.REQUEUED, "letters": [one for one, _ in meant]},
        )
    return {"requeued": [one for one, _ in meant]}


_OFFICES = roles(ApiRole.CENTRAL)
_LOOKERS = roles(ApiRole.CENTRAL, ApiRole.AUDITOR)
ORDERS: Mapping[str, Order] = {
    "upstream-pull": Order(run=order_pull, roles=roles(), about=every_school),
    "upstream-requeue": Order(run=order_requeue, roles=_OFFICES, about=every_school),
    "upstream-status": Order(run=order_status, roles=_LOOKERS, about=every_school),
}
