"""Who may give which order, and about which school: one table, checked behind every door.

An order comes in by three doors: the operator's command line, `POST /v1/operator/{order}` with a token, and the signed
call `order` of a phone. Each door only finds out who is speaking (`Principal`); what a role may do stands beside the
order itself (`Order.roles`) and is checked by `give`, nowhere else. Screens hide what somebody may not do; they decide
nothing.
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
        RequestProblem: `forbidden` for another role or school; whatever the order itself refuses.
    """
    who = desk.who
    if who.role not in order.roles:
        able = ", ".join(sorted(order.roles))
        raise RequestProblem("forbidden", f"the role {who.role} may not do this; these may: {able}")
    if who.schools is not None:
        school = await order.about(desk.db, args)
        if school is None:
            raise RequestProblem("forbidden", "this concerns every school; ask the central office")
        if school not in who.schools:
            raise RequestProblem("forbidden", "this is another school's; ask its champion")
    return await order.run(desk, args, data)


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
