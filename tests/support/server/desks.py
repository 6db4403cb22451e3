"""Somebody with a role at a running server, and the orders they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from syncserver.access import ApiRole, Desk, Principal, give
from syncserver.errors import RequestProblem
from syncserver.orders import ORDERS
from tests.support.server.world import SCHOOL, World


@dataclass(frozen=True, slots=True)
class Person:
    """One principal. Orders go the whole way through `give`, where rights are checked."""

    world: World
    who: Principal

    async def does(self, order: str, /, **args: object) -> dict[str, Any]:
        """Give an order that must be carried out, and settle what follows from it."""
        server = self.world.server
        desk = Desk(config=server.config, db=self.world.db, ports=server.ports, who=self.who)
        result = await give(ORDERS[order], desk, {name.rstrip("_"): value for name, value in args.items()})
        await self.world.settle()
        return result

    async def is_refused(self, order: str, /, **args: object) -> dict[str, Any]:
        """Give an order that must be refused by a rule; what the refusal says."""
        with pytest.raises(RequestProblem) as refused:
            await self.does(order, **args)
        assert refused.value.code == "rule", refused.value
        said = {**refused.value.extra, "detail": refused.value.detail}
        assert {"rule", "who", "ar"} <= said.keys()
        return said


def champion(world: World, user_id: str = "ch1", *, school: str = SCHOOL) -> Person:
    """A champion of a school."""
    return Person(world, Principal(
        role=ApiRole.CHAMPION, actor=f"user:{school}/{user_id}", schools=frozenset((school,)), user_id=user_id
    ))  # fmt: skip


def central(world: World, name: str = "ministry") -> Person:
    """Somebody of the central office."""
    return Person(world, Principal(role=ApiRole.CENTRAL, actor=f"token:{name}", schools=None))


def district(world: World, name: str = "district-7", *, school: str = SCHOOL) -> Person:
    """Somebody of a district office."""
    return Person(world, Principal(role=ApiRole.DISTRICT, actor=f"token:{name}", schools=frozenset((school,))))


def operator(world: World) -> Person:
    """Whoever keeps the server running."""
    return Person(world, Principal(role=ApiRole.OPERATOR, actor="operator", schools=None))
