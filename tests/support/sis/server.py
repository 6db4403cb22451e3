"""The sandbox's server: OneRoster 1.2 rostering, tokens, and the attendance routes of docs/handoff.md.

It shares no code with the client: what the two must agree on is the documents alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.sis.data import Objects, objects_of, small_roster

TOKEN, CLIENT, SECRET = "fixed-token", "hudur", "s3cret"
BASE = "/ims/oneroster/rostering/v1p2"
Spoil = Callable[[str, Any], Any]


@dataclass(slots=True)
class Sis:
    """A school system.

    `spoil(endpoint, answer)` may change an answer before it is sent; `refuse(event)` gives a cause or None; `status`
    answers everything with this status; `page_max` is the most it gives at once, `links` whether it links pages
    (`links_to`: of another host).
    """

    objects: Objects
    url: str = ""
    status: int | None = None
    retry_after: str | None = None
    page_max: int = 300
    links: bool = True
    links_to: str = ""
    totals: bool = True
    spoil: Spoil | None = None
    refuse: Callable[[dict[str, Any]], str | None] = lambda _: None
    forget_answer: bool = False
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    tokens_made: int = 0

    def find(self, collection: str, source_id: str) -> dict[str, Any]:
        return next(one for one in self.objects[collection] if one["sourcedId"] == source_id)

    def change(self, collection: str, source_id: str, at: str, **fields: Any) -> None:
        """Edit one object; `at` is the system's own time of the change."""
        self.find(collection, source_id).update(fields, dateLastModified=at)

    # ---- what it holds of attendance ----

    def standing(self, date: str) -> dict[tuple[str, str], dict[tuple[str, str], tuple[str, str]]]:
        """School and class to session and pupil to code and reason: the newest revision of each subject counts."""
        newest: dict[str, dict[str, Any]] = {}
        for event in self.events.values():
            data = event["data"]
            if "pupil" in data and data["date"] == date:
                known = newest.get(event["subject"])
                if known is None or known["data"]["revision"] < data["revision"]:
                    newest[event["subject"]] = event
        found: dict[tuple[str, str], dict[tuple[str, str], tuple[str, str]]] = {}
        for event in newest.values():
            data = event["data"]
            if not event["type"].endswith("withdrawn.v1"):
                reason = data["reason"] or ("" if data["minutes_late"] is None else str(data["minutes_late"]))
                cell = (data["session"], data["pupil"])
                found.setdefault((data["school"], data["class"]), {})[cell] = (data["code"], reason)
        return found

    # ---- answering ----

    async def collection(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.asked.append(f"{name}?{request.url.query}")
        if (refused := self._refused(request)) is not None:
            return refused
        objects = self.objects[name]
        if "filter" in request.query_params:
            assert "%3E%27" in request.url.query  # a raw > or ' is refused by real servers
            left, _, right = request.query_params["filter"].partition(">")
            assert left == "dateLastModified"
            objects = [one for one in objects if one["dateLastModified"] > right.strip("'")]
        limit = min(int(request.query_params["limit"]), self.page_max)
        offset = int(request.query_params["offset"])
        headers = {"x-total-count": str(len(objects))} if self.totals else {}
        if self.links and offset + limit < len(objects):
            query = f"limit={limit}&offset={offset + limit}"
            if "filter" in request.query_params:
                query += f"&filter={quote(request.query_params['filter'])}"
            headers["link"] = f'<{self.links_to or self.url}{BASE}/{name}?{query}>; rel="next"'
        return self._answer(name, {name: objects[offset : offset + limit]}, headers)

    async def token(self, request: Request) -> Response:
        form = dict(part.split("=") for part in (await request.body()).decode().split("&"))
        credentials = httpx_basic(CLIENT, SECRET)
        if request.headers.get("authorization") != credentials or form["grant_type"] != "client_credentials":
            return JSONResponse({"error": "invalid_client"}, 401)
        assert unquote(form["scope"]).endswith("roster.readonly")
        self.tokens_made += 1
        made = f"token-{self.tokens_made}"
        self.tokens.add(made)
        return JSONResponse({"access_token": made, "token_type": "Bearer", "expires_in": 3600})

    async def take(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        assert request.headers["content-type"] == "application/cloudevents-batch+json"
        body = await request.body()
        self.bodies.append(body)
        results = []
        for event in json.loads(body):
            cause = self.refuse(event)
            if cause is None:
                self.events.setdefault(event["id"], event)
            results.append({"id": event["id"], "status": "accepted"} if cause is None else
                           {"id": event["id"], "status": "rejected", "cause": cause})  # fmt: skip
        if self.forget_answer:
            self.forget_answer = False
            return Response(b"", 502)
        return self._answer("attendance/events", {"results": results})

    async def digests(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        found = []
        for (school, class_id), cells in self.standing(request.query_params["date"]).items():
            texts = sorted(f"{s}\t{p}\t{code}\t{reason}\n" for (s, p), (code, reason) in cells.items())
            digest = hashlib.sha256("".join(texts).encode()).hexdigest()
            found.append({"school": school, "class": class_id, "count": len(texts), "digest": digest})
        return self._answer("attendance/digests", {"date": request.query_params["date"], "classes": found})

    async def marks(self, request: Request) -> Response:
        self.asked.append(f"marks/{request.path_params['name']}")
        if (refused := self._refused(request)) is not None:
            return refused
        key = (request.query_params["school"], request.path_params["name"])
        cells = self.standing(request.query_params["date"]).get(key, {})
        found = [{"session": s, "pupil": p, "code": code, "reason": reason} for (s, p), (code, reason) in cells.items()]
        return self._answer("attendance/class", {"marks": found})

    def _refused(self, request: Request) -> Response | None:
        if self.status is not None:
            headers = {} if self.retry_after is None else {"retry-after": self.retry_after}
            return JSONResponse({"error": "by order"}, self.status, headers)
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return JSONResponse({"error": "token"}, 401)
        return None

    def _answer(self, endpoint: str, answer: Any, headers: dict[str, str] | None = None) -> Response:
        value = json.loads(json.dumps(answer))  # a copy: what is spoilt is the answer, not the data
        return JSONResponse(value if self.spoil is None else self.spoil(endpoint, value), headers=headers)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/token", self.token, methods=["POST"]),
                Route(f"{BASE}/{{name}}", self.collection),
                Route("/hudur/v1/attendance/events", self.take, methods=["POST"]),
                Route("/hudur/v1/attendance/digests", self.digests),
                Route("/hudur/v1/attendance/classes/{name}", self.marks),
            ]
        )


def httpx_basic(user: str, password: str) -> str:
    import base64

    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class _Http(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def open_sis(objects: Objects | None = None) -> AsyncIterator[Sis]:
    """One that works, with two generated schools unless told otherwise."""
    sis = Sis(objects=objects if objects is not None else objects_of(small_roster()))
    listener = socket.create_server(("127.0.0.1", 0))
    sis.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    http = _Http(uvicorn.Config(sis.app(), log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=2))
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    try:
        yield sis
    finally:
        http.should_exit = True
        await serving
        listener.close()
