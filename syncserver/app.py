"""The application: every route in one list, every door handed in."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from clientcore.exchange import SYNC_PATH
from clientcore.limits import BUNDLE_BYTES_MAX, ENROL_BODY_BYTES_MAX, SYNC_BODY_BYTES_MAX
from clientcore.register import is_id
from reconciliation.wire import iso
from syncserver import feed, parity_stage, schemas, webhooks
from syncserver.access import ROUTES, Desk, Door, Principal, check_route, give
from syncserver.body import DeviceRoute, busy_bytes, read_body
from syncserver.bundles import Bundles
from syncserver.calendar_feed import CalendarFeed
from syncserver.calls import Calls
from syncserver.checking import Checker
from syncserver.config import Config, PostgresAddress
from syncserver.consumers import Consumers, Stage
from syncserver.entrance import Entrance
from syncserver.errors import RequestProblem
from syncserver.intake import Intake
from syncserver.metrics import CONTENT_TYPE_LATEST, Metrics
from syncserver.middleware import Edge
from syncserver.nightly import handoff_stages
from syncserver.oneroster_zip import ARCHIVE_BYTES_MAX
from syncserver.openapi import OPENAPI
from syncserver.orders import ORDERS
from syncserver.pages import Pages, find_dist, load_pages
from syncserver.ports import ServerPorts
from syncserver.problems import write_problem
from syncserver.pull import Puller
from syncserver.reports.http import ReportRoutes
from syncserver.settle_helper import Helper
from syncserver.status import Status
from syncserver.status_page import StatusPage
from syncserver.store import replica as replica_reads
from syncserver.store.devices import DeviceBook
from syncserver.store.meta import Meta, read_meta
from syncserver.store.port import Database
from syncserver.store.replica import Replica, read_from
from syncserver.sync import Conversations
from syncserver.tokens import principal_of
from syncserver.upstream.feed import tell_age

_CALL_BODY_MAX = 16_384
_ORDER_TYPE = "application/octet-stream"
_ORDER_BODY_MAX = ARCHIVE_BYTES_MAX
_BUNDLE_BODY_MAX = BUNDLE_BYTES_MAX + 1_024  # the call's envelope around the file
_NO_STORE = {"cache-control": "no-store"}

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class Server:
    """The running parts of one server; made by `open_server`, shared by all requests through `app.state.server`.

    `stages` run beside the requests, in the one process that consumes the log; each until it is cancelled. Of them any
    other process runs the status alone.
    """

    config: Config
    db: Database
    ports: ServerPorts
    metrics: Metrics
    meta: Meta
    checker: Checker
    intake: Intake
    entrance: Entrance
    settler: Consumers
    status: Status
    puller: Puller
    talk: Conversations
    calls: Calls
    stages: list[Stage]
    replica: Replica | None

    def turn_away(self, body: bytes) -> bytes | None:
        """The whole HTTP answer to a sync request that would be turned away at once.

        None lets it come: for its turn, or to be told on the usual road what else is wrong with it.
        """
        try:
            after_s = self.entrance.turn_away(self.talk.asked(body), len(body))
        except RequestProblem:
            return None
        return None if after_s is None else busy_bytes(after_s)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The writer and the consumer at work; at the end pushes that wait are finished."""
        tasks = [asyncio.create_task(self.intake.run())]
        stages = self.stages if self.config.consumes else [self.status.run]
        tasks += [asyncio.create_task(stage()) for stage in stages]
        try:
            yield
        finally:
            await self.intake.drain()
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await self.settler.close()
            if self.replica is not None:
                await self.replica.close()


async def open_server(config: Config, db: Database, ports: ServerPorts, *, helper: Helper | None = None) -> Server:
    """Put the parts together over an open store.

    Args:
        config: How to run.
        db: The open store.
        ports: The doors.
        helper: Another process that reads and computes for the settle stage; the server ends it.

    Raises:
        StoreFailed: the store cannot be written.
    """
    metrics = Metrics()
    meta = await read_meta(db)
    book = DeviceBook(db)
    await book.warm()
    checker = Checker(config, book, settles=config.consumes and helper is None)
    intake = Intake(config, db, ports, metrics)
    entrance = Entrance(config, ports, metrics)
    alone: dict[str, Stage] = {
        "parity": partial(parity_stage.run, db, config, ports),
        "webhooks": partial(webhooks.run, db, config, ports),
        **handoff_stages(db, config, ports),
    }
    if isinstance(config.store, PostgresAddress):
        alone["heartbeat"] = partial(replica_reads.run, db, ports.clock)  # its replica may be another process's setting
    divided = db.partitions > 1  # then several processes may run, and the claims decide which of them does what
    settler = Consumers(
        config, db, ports, metrics, intake.settled_wake, revisions_above=meta.feed_from,
        stages=alone if divided else {}, crowding=lambda: entrance.crowding, helper=helper,
    )  # fmt: skip
    status = Status(config, db, ports, intake, entrance)
    replica = _replica_of(config, ports)
    puller = Puller(config, db, ports, meta.epoch, replica)
    talk = Conversations(config, db, ports, metrics, meta, checker, intake, puller, entrance)
    return Server(
        config=config,
        db=db,
        ports=ports,
        metrics=metrics,
        meta=meta,
        checker=checker,
        intake=intake,
        entrance=entrance,
        settler=settler,
        status=status,
        puller=puller,
        talk=talk,
        calls=Calls(config, db, ports, meta, book, Bundles(ports, checker, intake), intake.settled_wake),
        stages=[settler.run, status.run, *(() if divided else alone.values())],
        replica=replica,
    )


def _replica_of(config: Config, ports: ServerPorts) -> Replica | None:
    if config.replica is None:
        return None
    return Replica(config.replica.dsn, ports.clock, stale_max_ms=config.replica_stale_max_s * 1_000)


def create_app(server: Server, *, pages: Pages | None = None) -> Starlette:
    """The ASGI application of an opened server. Its lifespan runs the writer and the consumer.

    Args:
        server: See `open_server`.
        pages: The phone's page; by default what the last build made.
    """
    devices = {
        SYNC_PATH: DeviceRoute(server.talk.sync, SYNC_BODY_BYTES_MAX, server.entrance, server.talk.asked),
        "/v1/enrol": DeviceRoute(server.talk.enrol, ENROL_BODY_BYTES_MAX, server.entrance),
        "/v1/call": DeviceRoute(server.calls.call, _CALL_BODY_MAX, server.entrance),
        "/v1/bundles": DeviceRoute(server.calls.bundle, _BUNDLE_BODY_MAX, server.entrance),
    }
    reports = ReportRoutes(server.config, server.db, server.ports, server.replica)
    page = StatusPage(server.config, server.ports, server.status)
    routes = [
        *(_route(path, endpoint, "POST") for path, endpoint in devices.items()),
        _route("/v1/events", _events),
        _route("/v1/schemas/{name}", _schema),
        _route("/v1/operator/{order}", _order, "POST"),
        _route("/v1/calendar.ics", CalendarFeed(server.config, server.db, server.ports).get),
        *(_route(path, _in_turn(get)) for path, get in reports.endpoints().items()),
        _route("/status", page.html),
        _route("/v1/status", page.json),
        _route("/metrics", _metrics),
        _route("/healthz", _healthz),
        _route("/readyz", _readyz),
        _route("/openapi.json", _openapi),
        *(pages or load_pages(find_dist())).routes(),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with server.running():
            yield

    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(Edge, metrics=server.metrics, clock=server.ports.clock, direct=devices)],
        exception_handlers={HTTPException: _refuse_http},  # type: ignore[dict-item]
    )
    app.state.server = server
    return app


# ---- rights -----------------------------------------------------------------------------------------------------


def _route(path: str, endpoint: Endpoint | DeviceRoute, method: str = "GET") -> Route:
    """A route with its right from `ROUTES`; without a row there it cannot be built."""
    right = ROUTES[path]
    if isinstance(endpoint, DeviceRoute) or right is Door.OPEN:
        assert isinstance(endpoint, DeviceRoute) == (right is Door.SIGNED)
        return Route(path, endpoint, methods=[method])

    async def guarded(request: Request) -> Response:
        server = _server(request)
        request.state.who = await principal_of(request, server.config, server.db)
        check_route(path, request.state.who)
        return await endpoint(request)

    guarded.__name__ = endpoint.__name__
    return Route(path, guarded, methods=[method])


def _in_turn(endpoint: Endpoint) -> Endpoint:
    """An endpoint that reads much: it waits for its turn behind the registers of the day."""

    async def waiting(request: Request) -> Response:
        async with _server(request).entrance.turn():
            return await endpoint(request)

    waiting.__name__ = endpoint.__name__
    return waiting


def who_asks(request: Request) -> Principal:
    """Who makes a request to a route with a right of its own."""
    who = request.state.who
    assert isinstance(who, Principal)
    return who


def school_asked(request: Request) -> str | None:
    """The school in the parameter `school`, which whoever asks may read; None: all.

    Raises:
        RequestProblem: `bad-request`, `forbidden`.
    """
    who, school = who_asks(request), request.query_params.get("school")
    if school is None and who.schools is not None:
        if len(who.schools) != 1:
            raise RequestProblem("bad-request", f"name one school: {', '.join(sorted(who.schools)[:20])}")
        (school,) = who.schools
    if school is None:
        return None
    if not is_id(school):
        raise RequestProblem("bad-request", "school is no school id")
    who.check_school(school)
    return school


# ---- orders, feed, metrics --------------------------------------------------------------------------------------


async def _events(request: Request) -> Response:
    after = _number(request, "after", 0, 0, feed.AFTER_MAX)
    limit = _number(request, "limit", feed.LIMIT_DEFAULT, 1, feed.LIMIT_MAX)
    server, schools = _server(request), _schools_asked(request)
    page, as_of_ms = await read_from(
        server.replica, server.db, lambda reader: feed.read_page(reader, after=after, limit=limit, schools=schools)
    )
    headers = {**_NO_STORE, "hudur-next-after": str(page.next_after)}
    if as_of_ms is not None:
        headers["hudur-as-of"] = iso(as_of_ms)
    return Response(page.to_bytes(), media_type=feed.MEDIA_TYPE, headers=headers)


def _number(request: Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 17 or not low <= int(text) <= high:
        raise RequestProblem("bad-request", f"{name} is a number from {low} to {high}")
    return int(text)


def _schools_asked(request: Request) -> frozenset[str] | None:
    """The school that is named, else every one whoever asks may read; None: all there are."""
    if "school" not in request.query_params:
        return who_asks(request).schools
    school = school_asked(request)
    return None if school is None else frozenset((school,))


async def _schema(request: Request) -> Response:
    """The JSON Schema of the data of one type of event."""
    found = schemas.SCHEMAS.get(request.path_params["name"])
    if found is None:
        raise RequestProblem("not-found", "no such schema")
    return Response(found, media_type=schemas.MEDIA_TYPE, headers={"cache-control": "public, max-age=86400"})


async def _order(request: Request) -> Response:
    """One order: its arguments as JSON in `args`, a file as the body."""
    server = _server(request)
    if request.headers.get("content-type") != _ORDER_TYPE:
        raise RequestProblem("media-type", f"send {_ORDER_TYPE}: no foreign page can do that without asking first")
    order = ORDERS.get(request.path_params["order"])
    if order is None:
        raise RequestProblem("not-found", "no such order")
    try:
        args = json.loads(request.query_params.get("args", "{}"))
    except (ValueError, RecursionError):
        args = None
    if not isinstance(args, dict):
        raise RequestProblem("bad-request", "args is a JSON object")
    who_asks(request).check_role(order.roles)  # `give` checks it too; nobody else makes the server hold a file
    data = await read_body(request.receive, _ORDER_BODY_MAX)
    desk = Desk(config=server.config, db=server.db, ports=server.ports, who=who_asks(request))
    result = await give(order, desk, args, data)
    server.intake.settled_wake.set()
    return Response(json.dumps(result, ensure_ascii=False).encode(), media_type="application/json", headers=_NO_STORE)


async def _openapi(_: Request) -> Response:
    return Response(OPENAPI, media_type="application/json")


async def _metrics(request: Request) -> Response:
    server = _server(request)
    server.entrance.tell()
    await server.settler.tell_lag()
    await webhooks.tell_lag(server.db, server.metrics, server.ports.clock.wall_ms())
    await tell_age(server.db, server.metrics, server.ports.clock.wall_ms())
    return Response(server.metrics.write(), headers={"content-type": CONTENT_TYPE_LATEST, **_NO_STORE})


async def _healthz(_: Request) -> Response:
    return Response(b'{"ok":true}', media_type="application/json", headers=_NO_STORE)


async def _readyz(request: Request) -> Response:
    server = _server(request)
    if server.db.failed or (server.config.consumes and not server.settler.alive):
        raise RequestProblem("busy", "the store or the consumer is not at work", retry_after_s=10)
    await server.db.fetch_one("SELECT 1")
    return Response(b'{"ok":true}', media_type="application/json", headers=_NO_STORE)


# ---- problems ---------------------------------------------------------------------------------------------------


def _server(request: Request) -> Server:
    server = request.app.state.server
    assert isinstance(server, Server)
    return server


async def _refuse_http(_: Request, error: HTTPException) -> Response:
    code = {404: "not-found", 405: "method"}.get(error.status_code, "bad-request")
    reply = write_problem(RequestProblem(code))
    return Response(reply.body, status_code=reply.status, headers={**(error.headers or {}), **reply.headers})
