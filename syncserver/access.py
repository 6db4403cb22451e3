"""Who may give which order and read which route, and about which school: two tables, checked behind every door.

An order comes in by three doors: the operator's command line, `POST /v1/operator/{order}` with a token, and the signed
call `order` of a phone. Each door only finds out who is speaking (`Principal`); what a role may do stands beside the
order itself (`Order.roles`) and is checked by `give`, nowhere else. Every other route has its row in `ROUTES`; a route
without one cannot be built. Screens hide what somebody may not do; they decide nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from syncserver.config import Config
from syncserver.errors import RequestProblem
from syncserver.ports import ServerPorts
from syncserver.store.port import Database, Reader

Args = Mapping[str, Any]


class ApiRole(StrEnum):
    """What somebody is to the server. Teachers and champions come from the roster, the others hold a token."""

    TEACHER = "teacher"
    CHAMPION = "champion"
    DISTRICT = "district"  # reads its schools, is the second person of large bulk operations
    CENTRAL = "central"  # the ministry: calendar, overrides with an audit reference
    AUDITOR = "auditor"  # reads everything, changes nothing
    CONSUMER = "consumer"  # a program downstream: feed, webhooks, exports
    OPERATOR = "operator"  # keeps the server running


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who was proven to be speaking.

    Attributes:
        role: What they are.
        actor: How the audit names them: `user:SCHOOL/ID`, `token:NAME`, `operator`.
        schools: The schools they may speak about; None: every school.
        user_id: Their id in the roster; None for tokens and operators.
    """

    role: ApiRole
    actor: str
    schools: frozenset[str] | None
    user_id: str | None = None

    @property
    def by_id(self) -> str:
        """How a decision names them: the id of a user; a token is `token:NAME`, which is no user's id."""
        return self.actor if self.user_id is None else self.user_id

    def check_school(self, school: str) -> None:
        """Let pass who may speak about `school`.

        Raises:
            RequestProblem: `forbidden`.
        """
        if self.schools is not None and school not in self.schools:
            raise _forbidden(
                "other-school",
                "this is another school's; ask its champion",
                arabic="هذا يخص مدرسة أخرى؛ يُرجى سؤال منسّق تلك المدرسة",
                who="the champion of that school",
            )

    def check_every_school(self) -> None:
        """Let pass who may speak about every school.

        Raises:
            RequestProblem: `forbidden`.
        """
        if self.schools is not None:
            raise _forbidden(
                "every-school",
                "this concerns every school; ask the central office",
                arabic="هذا يخص كل المدارس؛ يُرجى سؤال الإدارة المركزية",
                who="central, operator",
            )

    def check_role(self, able: frozenset[ApiRole]) -> None:
        """Let pass who has one of these roles.

        Raises:
            RequestProblem: `forbidden`.
        """
        if self.role not in able:
            names = ", ".join(sorted(able))
            raise _forbidden(
                "role",
                f"the role {self.role} may not do this; these may: {names}",
                arabic="هذا الدور لا يسمح بذلك",
                who=names,
            )


OPERATOR = Principal(role=ApiRole.OPERATOR, actor="operator", schools=None)
"""Whoever sits at the machine, or holds its token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What an order works with."""

    config: Config
    db: Database
    ports: ServerPorts
    who: Principal = OPERATOR

    @property
    def now_ms(self) -> int:
        """Server time."""
        return self.ports.clock.wall_ms()


Run = Callable[[Desk, Args, bytes], Awaitable[dict[str, Any]]]
About = Callable[[Reader, Args], Awaitable[str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order.

    Attributes:
        run: Carries it out; plain JSON data in and out, a file as bytes.
        roles: Who may give it.
        about: The school it concerns, from its arguments; None concerns every school, which only a principal of every
            school may order. A name that leads to no school gives `not-found`.
    """

    run: Run
    roles: frozenset[ApiRole]
    about: About


def text(args: Args, name: str, *, chars_max: int = 400) -> str:
    """A needed argument.

    Raises:
        RequestProblem: `bad-request`.
    """
    value = args.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > chars_max:
        raise RequestProblem("bad-request", f"{name} is missing (1 to {chars_max} characters)")
    return value.strip()


def number(args: Args, name: str) -> int:
    """A needed whole number.

    Raises:
        RequestProblem: `bad-request`.
    """
    value = args.get(name)
    if type(value) is not int:
        raise RequestProblem("bad-request", f"{name} is a whole number")
    return value


async def every_school(_: Reader, __: Args) -> str | None:
    """About every school: for `Order.about`."""
    return None


async def named_school(_: Reader, args: Args) -> str | None:
    """About the school in `school`."""
    return text(args, "school")


async def named_register(_: Reader, args: Args) -> str | None:
    """About the school of the register in `register` (school/class/date/session)."""
    return text(args, "register").partition("/")[0]


def roles(*names: ApiRole) -> frozenset[ApiRole]:
    """These roles and the operator."""
    return frozenset((*names, ApiRole.OPERATOR))


def only(*names: ApiRole) -> frozenset[ApiRole]:
    """These roles and nobody else: decisions about people's work that keeping a server gives no right to."""
    return frozenset(names)


async def give(order: Order, desk: Desk, args: Args, data: bytes = b"") -> dict[str, Any]:
    """Check the right, then carry the order out.

    Raises:
        RequestProblem: `forbidden` for another role or school; `bad-request` for arguments that no store can hold;
            whatever the order itself refuses.
    """
    who = desk.who
    who.check_role(order.roles)
    _check_storable(args)
    if who.schools is not None:
        school = await order.about(desk.db, args)
        if school is None:
            who.check_every_school()
        else:
            who.check_school(school)
    return await order.run(desk, args, data)


def _check_storable(args: Args) -> None:
    """JSON can say what no column takes: half a character, a NUL, a number beyond 64 bits.

    Raises:
        RequestProblem: `bad-request`.
    """
    rest: list[Any] = [dict(args)]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            rest += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            rest += one
        elif isinstance(one, str) and ("\0" in one or any("\ud800" <= char <= "\udfff" for char in one)):
            raise RequestProblem("bad-request", "a text has half a character or a NUL in it")
        elif isinstance(one, int) and not -(1 << 63) <= one < 1 << 63:
            raise RequestProblem("bad-request", "a number is too large")


# ---- routes -----------------------------------------------------------------------------------------------------


class Door(StrEnum):
    """Routes whose right is not a role's."""

    OPEN = "open"  # told to anybody, by intent: nothing of any person or register stands in it
    SIGNED = "signed"  # a device's signature says who speaks; the command's own roles decide
    ORDERS = "orders"  # anybody with a token or at this machine; `give` checks the order's own roles


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRight:
    """Who may read a route.

    Attributes:
        roles: These roles.
        every_school: It tells of every school at once, so only principals of every school may read it. Otherwise the
            endpoint itself keeps to `Principal.schools`.
    """

    roles: frozenset[ApiRole]
    every_school: bool = False


ROUTES: Mapping[str, RouteRight | Door] = {
    "/v1/sync": Door.SIGNED,
    "/v1/enrol": Door.SIGNED,
    "/v1/call": Door.SIGNED,
    "/v1/bundles": Door.SIGNED,
    "/v1/operator/{order}": Door.ORDERS,
    "/v1/events": RouteRight(roles=roles(ApiRole.CONSUMER, ApiRole.AUDITOR)),
    **{
        f"/v1/reports/{kind}": RouteRight(roles=roles(ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR))
        for kind in ("class", "school", "district")
    },
    "/metrics": RouteRight(roles=roles(ApiRole.AUDITOR), every_school=True),
    "/v1/schemas/{name}": Door.OPEN,
    "/v1/calendar.ics": Door.OPEN,
    "/status": Door.OPEN,
    "/v1/status": Door.OPEN,
    "/healthz": Door.OPEN,
    "/readyz": Door.OPEN,
    "/openapi.json": Door.OPEN,
}
"""Every route of the server but the phone's page, which is open: it is the same for everybody and holds no data."""


def check_route(path: str, who: Principal) -> None:
    """Let pass who may read the route.

    Raises:
        RequestProblem: `forbidden`.
    """
    right = ROUTES[path]
    if isinstance(right, RouteRight):
        who.check_role(right.roles)
        if right.every_school:
            who.check_every_school()


# ---- refusals ---------------------------------------------------------------------------------------------------


def _forbidden(rule: str, detail: str, *, arabic: str, who: str) -> RequestProblem:
    return RequestProblem("forbidden", detail, extra={"rule": rule, "who": who, "ar": arabic})


def refusal(rule: str, detail: str, *, arabic: str, who: str, closed_on: str | None = None) -> RequestProblem:
    """A rule of the school stands against it: which rule, since when, who can open it, in both languages.

    Args:
        rule: Stable slug of the rule, e.g. `adjustment-locked`.
        detail: One English sentence.
        arabic: The same for the screen.
        who: Who can open it, e.g. `central` or `another champion of the school`.
        closed_on: Civil date or moment since which it is closed, where there is one.
    """
    extra: dict[str, str | int] = {"rule": rule, "who": who, "ar": arabic}
    if closed_on is not None:
        extra["closed_on"] = closed_on
    return RequestProblem("rule", detail, extra=extra)
