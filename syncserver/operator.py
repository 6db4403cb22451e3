"""The operator's hand: gives orders to the server that runs on a store, or, when none runs, opens the store itself.

A SQLite store has one writer. A second process that wrote the same WAL file could corrupt it, so an order never goes
around a running server. PostgreSQL has room for many: there an order opens the database, beside the servers.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from clientcore.errors import Problem, TransportError
from syncserver.access import Desk, give
from syncserver.config import StoreAddress, read_config
from syncserver.errors import StoreInUse
from syncserver.orders import ORDERS
from syncserver.ports import ServerPorts
from syncserver.store.open import open_store

_DEADLINE_S = 600  # a national roster takes minutes


def address_file(store: Path) -> Path:
    """Where a running server writes its address."""
    return Path(f"{store}.server")


class Operator:
    """Gives orders (`syncserver.orders.ORDERS`)."""

    def __init__(self, *, desk: Desk | None = None, http: httpx.AsyncClient | None = None) -> None:
        self._desk, self._http = desk, http

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, store: StoreAddress, environment: Mapping[str, str] | None = None
    ) -> AsyncIterator[Operator]:
        """Reach the server of a store, or open the store.

        Args:
            store: Where it is.
            environment: The settings, as a server would read them; `os.environ` by default.

        Raises:
            StoreInUse: another program holds the store and has not said where it answers.
            StoreFailed: the store cannot be opened.
        """
        settings = os.environ if environment is None else environment
        try:
            db = await open_store(store)
        except StoreInUse:
            if not isinstance(store, Path):
                raise
            address = address_file(store)
            if not address.exists():
                raise
            async with _client(address.read_text("utf-8").strip(), settings) as http:
                yield cls(http=http)
            return
        try:
            config = read_config(settings, store=store, host="127.0.0.1", port=0)  # it does not listen
            yield cls(desk=Desk(config=config, db=db, ports=ServerPorts()))
        finally:
            await db.close()

    async def call(self, order: str, args: Mapping[str, Any], *, data: bytes = b"") -> dict[str, Any]:
        """Give one order and return what it gives.

        Raises:
            RequestProblem: the store was opened here, and the order cannot be carried out.
            Problem: the server refused it.
            TransportError: the server does not answer.
        """
        if self._http is None:
            assert self._desk is not None
            return await give(ORDERS[order], self._desk, args, data)
        try:
            reply = await self._http.post(
                f"/v1/operator/{order}",
                params={"args": json.dumps(dict(args))},
                content=data,
                headers={"content-type": "application/octet-stream"},
            )
        except httpx.HTTPError as broken:
            raise TransportError("offline", f"the server does not answer: {type(broken).__name__}") from None
        body: dict[str, Any] = reply.json()
        if reply.status_code != 200:
            code = str(body.get("type", "fault")).rpartition("/")[2]
            raise Problem(
                code,
                str(body.get("detail", "")),
                status=reply.status_code,
                retry=str(body.get("retry", "never")),
                retry_after_s=None,
                body=body,
            )
        return body


def _client(url: str, environment: Mapping[str, str]) -> httpx.AsyncClient:
    token = environment.get("HUDUR_OPERATOR_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=_DEADLINE_S, trust_env=False)
