"""`GET /v1/reports/class|school|district`: reports for offices and programs, in any of the formats."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from syncserver.access import Principal
from syncserver.config import Config
from syncserver.errors import RequestProblem
from syncserver.ports import ServerPorts
from syncserver.reports.build import read_wish, report, today_of
from syncserver.reports.columns import KINDS
from syncserver.reports.files import FORMATS, write
from syncserver.store.port import Database

_YES = {"1": True, "true": True, "0": False, "false": False}


class ReportRoutes:
    """The reports over one store."""

    def __init__(self, config: Config, db: Database, ports: ServerPorts) -> None:
        self._config, self._db, self._ports = config, db, ports

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
        found = await report(self._db, wish, zone=zone, now_ms=now_ms, who=who)
        body = write(found, form, bom=bool(flags[0]), arabic=bool(flags[1]))
        headers = {"cache-control": "no-store", "content-type": FORMATS[form]}
        if form in ("csv", "xlsx"):
            name = f"{kind}-{wish.period}-{wish.day}.{form}"  # ids only, and none that a header could not carry
            headers["content-disposition"] = f'attachment; filename="{name}"'
        return Response(body, headers=headers)
