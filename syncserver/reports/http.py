"""`GET /v1/reports/class|school|district`: reports for offices and programs, in any of the formats."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from reconciliation.wire import iso
from syncserver.access import Principal
from syncserver.config import Config
from syncserver.errors import RequestProblem
from syncserver.ports import ServerPorts
from syncserver.reports.build import read_wish, report, today_of
from syncserver.reports.columns import KINDS
from syncserver.reports.files import FORMATS, write
from syncserver.store.port import Database
from syncserver.store.replica import Replica, read_from

_YES = {"1": True, "true": True, "0": False, "false": False}


class ReportRoutes:
    """The reports over one store."""

    def __init__(self, config: Config, db: Database, ports: ServerPorts, replica: Replica | None = None) -> None:
        self._config, self._db, self._ports, self._replica = config, db, ports, replica

    def endpoints(self) -> dict[str, Callable[[Request], Awaitable[Response]]]:
        """Path to endpoint, one for each kind."""
        return {f"/v1/reports/{kind}": self._endpoint(kind) for kind in KINDS}

    def _endpoint(self, kind: str) -> Callable[[Request], Awaitable[Response]]:
        async def get(request: Request) -> Response:
            return await self._get(kind, request)

        get.__name__ = f"report_{kind}"
        return get

    async def _get(self, kind: str, request: Request) -> Response:
        """`school`, `class`, `district`, `day`, `period`, `format`, and for CSV `bom` and `arabic`."""
        asked, who = request.query_params, request.state.who
        assert isinstance(who, Principal)
        form, flags = asked.get("format", "json"), [_YES.get(asked.get(name, "0")) for name in ("bom", "arabic")]
        if form not in FORMATS or None in flags:
            raise RequestProblem("bad-request", f"format is one of {', '.join(FORMATS)}; bom and arabic are 1 or 0")
        now_ms, zone = self._ports.clock.wall_ms(), self._config.zone
        wish = read_wish(kind, asked, today_of(now_ms, zone))
        found, as_of_ms = await read_from(
            self._replica, self._db, lambda reader: report(reader, wish, zone=zone, now_ms=now_ms, who=who)
        )
        as_of = None if as_of_ms is None else iso(as_of_ms)
        if as_of is not None:
            found = {**found, "as_of": as_of}
        body = write(found, form, bom=bool(flags[0]), arabic=bool(flags[1]))
        headers = {"cache-control": "no-store", "content-type": FORMATS[form]}
        if as_of is not None:
            headers["hudur-as-of"] = as_of
        if form in ("csv", "xlsx"):
            name = f"{kind}-{wish.period}-{wish.day}.{form}"  # ids only, and none that a header could not carry
            headers["content-disposition"] = f'attachment; filename="{name}"'
        return Response(body, headers=headers)
