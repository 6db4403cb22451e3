"""The server's own description (OpenAPI 3.1), kept beside the routes by a test."""

from __future__ import annotations

import json
from typing import Any

from clientcore.exchange import MEDIA_TYPE
from syncserver import feed, problems
from syncserver.orders import ORDERS
from syncserver.reports.columns import KINDS, PERIODS
from syncserver.reports.files import FORMATS
from syncserver.schemas import MEDIA_TYPE as SCHEMA_TYPE
from syncserver.schemas import SCHEMAS

_PROBLEM = {"$ref": "#/components/schemas/Problem"}
_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_OK = {"type": "object", "required": ["ok"], "properties": {"ok": {"const": True}}}


def _problems(*statuses: int) -> dict[str, Any]:
    slugs = {
        status: sorted(slug for slug, kind in problems.KINDS.items() if kind.status == status) for status in statuses
    }
    return {
        str(status): {
            "description": ", ".join(slugs[status]),
            "content": {problems.MEDIA_TYPE: {"schema": _PROBLEM}},
            **({"headers": {"retry-after": {"schema": {"type": "integer"}}}} if status in (429, 503) else {}),
        }
        for status in statuses
    }


def _device(name: str, summary: str, *statuses: int) -> dict[str, Any]:
    """A route of devices: msgpack in, signed msgpack out; docs/protocol.md says the bytes."""
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "requestBody": {"required": True, "content": {MEDIA_TYPE: _BYTES}},
            "responses": {
                "200": {"description": "A signed answer", "content": {MEDIA_TYPE: _BYTES}},
                **_problems(400, 401, 408, 413, 415, 429, 500, 503, *statuses),
            },
        }
    }


def _get(
    name: str, summary: str, media_type: str, schema: dict[str, Any], *statuses: int, **more: Any
) -> dict[str, Any]:
    responses = {"200": {"description": summary, "content": {media_type: {"schema": schema}}}, **_problems(*statuses)}
    return {"get": {"operationId": name, "summary": summary, "responses": responses, **more}}


def _whole(name: str, low: int, high: int, default: int) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": low, "maximum": high, "default": default}
    return {"name": name, "in": "query", "required": False, "schema": schema}


_OPERATOR: dict[str, Any] = {"security": [{"operator": []}, {}]}
_SCHOOL = {
    "name": "school",
    "in": "query",
    "required": False,
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,35}$"},
}
_MINUTES = {"type": "integer", "minimum": 0, "maximum": 1_500}
_SECONDS: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0}
_STATUS = {
    "type": "object",
    "additionalProperties": False,
    "required": ["state", "measured_at", "shedding", "store_failing", "delay_s", "last_commit_at", "days"],
    "properties": {
        "state": {"enum": ["accepting", "late", "shedding", "failing", "unknown"]},
        "measured_at": {"type": "integer", "description": "Seconds since 1970, as `last_commit_at`"},
        "shedding": {"type": "boolean"},
        "store_failing": {"type": "boolean"},
        "delay_s": {**_SECONDS, "description": "Age of the oldest change not counted yet; null: not measured"},
        "last_commit_at": _SECONDS,
        "days": {
            "type": "array",
            "items": {
                "type": "object",
                "description": "Minutes of one civil day, today first; `unknown` were not measured and are never good",
                "additionalProperties": False,
                "required": ["date", "passed", "measured", "good", "shed", "delayed", "failed", "unknown"],
                "properties": {
                    "date": {"type": "string", "format": "date"},
                    **dict.fromkeys(("passed", "measured", "good", "shed", "delayed", "failed", "unknown"), _MINUTES),
                },
            },
        },
    },
}
_AS_OF: dict[str, Any] = {
    "hudur-as-of": {
        "required": False,
        "schema": {"type": "string", "format": "date-time"},
        "description": "Answered by a replica: what is told holds at least as of this moment",
    }
}
_EVENT = {
    "type": "object",
    "description": "One CloudEvents 1.0 event; `dataschema` is where this server gives the schema that `data` keep",
    "additionalProperties": False,
    "required": [
        "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", "sequence",
    ],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "format": "uri-reference"},
        "type": {"enum": sorted(name.removesuffix(".json") for name in SCHEMAS)},
        "subject": {"type": "string", "minLength": 1},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "dataschema": {"enum": sorted(f"/v1/schemas/{name}" for name in SCHEMAS)},
        "data": {"type": "object"},
        "sequence": {"type": "string", "pattern": "^[0-9]{20}$"},
    },
}  # fmt: skip


def document() -> dict[str, Any]:
    """The whole description."""
    events = _get(
        "events",
        "Clean events behind a sequence, oldest first (CloudEvents 1.0 JSON batch)",
        feed.MEDIA_TYPE,
        {"type": "array", "items": _EVENT},
        400,
        401,
        403,
        500,
        503,
        parameters=[
            _whole("after", 0, feed.AFTER_MAX, 0),
            _whole("limit", 1, feed.LIMIT_MAX, feed.LIMIT_DEFAULT),
            _SCHOOL,
        ],
        **_OPERATOR,
    )
    events["get"]["responses"]["200"]["headers"] = {
        "hudur-next-after": {"required": True, "schema": {"type": "integer"}, "description": "The next `after`"},
        **_AS_OF,
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hudur",
            "version": "1",
            "description": "School registers, offline first. The bytes of the device routes are in docs/protocol.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/sync": _device("sync", "Carry frames up; receipts and what the device lacks come back", 403),
            "/v1/enrol": _device("enrol", "Turn a code into a device of one person", 409, 410),
            "/v1/call": _device("call", "A signed command of a champion", 403, 409),
            "/v1/bundles": _device("bundle", "Hand in frames that somebody else made, from a file", 403, 409),
            "/v1/events": events,
            "/v1/schemas/{name}": _get(
                "schema",
                "JSON Schema (2020-12) of the data of one type of event",
                SCHEMA_TYPE,
                {"type": "object"},
                404,
                500,
                parameters=[{"name": "name", "in": "path", "required": True, "schema": {"enum": sorted(SCHEMAS)}}],
            ),
            "/v1/operator/{order}": _orders(),
            "/v1/calendar.ics": _calendar(),
            **{f"/v1/reports/{kind}": _report(kind) for kind in KINDS},
            **_status(),
            "/metrics": _get(
                "metrics", "Prometheus metrics", "text/plain", {"type": "string"}, 401, 403, 500, **_OPERATOR
            ),
            "/healthz": _get("healthz", "The process lives", "application/json", _OK),
            "/readyz": _get("readyz", "Store and consumer are at work", "application/json", _OK, 500, 503),
            "/openapi.json": _get("openapi", "This document", "application/json", {"type": "object"}),
        },
        "components": {
            "schemas": {"Problem": _problem_schema()},
            "securitySchemes": {"operator": {"type": "http", "scheme": "bearer"}},
        },
    }


def _calendar() -> dict[str, Any]:
    return _get(
        "calendar",
        "Calendar of a school, else of a governorate, else of every school (RFC 5545)",
        "text/calendar",
        {"type": "string"},
        400,
        404,
        500,
        503,
        parameters=[_SCHOOL, {**_SCHOOL, "name": "governorate"}],
    )


def _status() -> dict[str, Any]:
    about = "`ar` or `en`; anything else: as the browser likes"
    lang = {"name": "lang", "in": "query", "required": False, "schema": {"type": "string"}, "description": about}
    page = _get("status_page", "The same for people", "text/html", {"type": "string"}, 500, parameters=[lang])
    what = "How the server is and was in the last 14 days"
    return {"/status": page, "/v1/status": _get("status", what, "application/json", _STATUS, 500)}


def _report(kind: str) -> dict[str, Any]:
    words = {"day": {"type": "string", "format": "date"}, "period": {"enum": list(PERIODS)},
             "format": {"enum": list(FORMATS)}, "bom": {"enum": [0, 1]}, "arabic": {"enum": [0, 1]}}  # fmt: skip
    if kind == "class":
        words["class"] = _SCHOOL["schema"]
    more = [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in words.items()]
    asked = _get(
        f"report_{kind}",
        "Attendance of a day or week; a line for each register, class or school. Not taken is never absent",
        "application/json",
        {"type": "object", "required": ["rows", "total"]},
        400, 401, 403, 404, 500, 503,
        parameters=[{**_SCHOOL, "required": True}, *more],
        **_OPERATOR,
    )  # fmt: skip
    asked["get"]["responses"]["200"]["headers"] = _AS_OF
    for name, media_type in FORMATS.items():
        if name != "json":
            asked["get"]["responses"]["200"]["content"][media_type.partition(";")[0]] = {"schema": {}}
    return asked


def _orders() -> dict[str, Any]:
    return {
        "post": {
            "operationId": "order",
            "summary": "An operator's order; docs/operations.md names the arguments of each",
            **_OPERATOR,
            "parameters": [
                {"name": "order", "in": "path", "required": True, "schema": {"enum": sorted(ORDERS)}},
                {
                    "name": "args",
                    "in": "query",
                    "required": False,
                    "schema": {"type": "string"},
                    "description": "A JSON object",
                },
            ],
            "requestBody": {"required": True, "content": {"application/octet-stream": _BYTES}},
            "responses": {
                "200": {
                    "description": "What the order gave",
                    "content": {"application/json": {"schema": {"type": "object"}}},
                },
                **_problems(400, 401, 403, 404, 408, 409, 413, 415, 429, 500, 503),
            },
        }
    }


def _problem_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "RFC 9457 problem; `retry` says what helps, `safe` that the work is on the device",
        "required": ["type", "title", "status", "detail", "retry", "safe", "held"],
        "properties": {
            "type": {"enum": sorted(f"/problems/{slug}" for slug in problems.KINDS)},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "retry": {"enum": ["never", "same", "after", "split", "rekey", "upgrade"]},
            "safe": {"const": True},
            "held": {"type": "integer", "minimum": 0},
            "nonce": {"type": "string"},
            "range": {"type": "string"},
            "rule": {"type": "string"},
            "closed_on": {"type": "string"},
            "who": {"type": "string"},
            "ar": {"type": "string"},
        },
    }


OPENAPI = json.dumps(document(), sort_keys=True).encode()
