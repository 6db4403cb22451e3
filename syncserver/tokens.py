"""Who speaks over HTTP: the operator, or the holder of a granted token. The one place that finds out.

A token is 160 random bits. The store holds its SHA-256 only, so neither the store nor a backup can be used to speak for
anybody; a digest with salt and cost would protect guessable words, and these cannot be guessed.
"""

from __future__ import annotations

import hashlib
import hmac

from starlette.requests import Request

from syncserver.access import OPERATOR, ApiRole, Principal
from syncserver.config import Config, is_loopback
from syncserver.errors import RequestProblem
from syncserver.ports import ServerPorts
from syncserver.store.port import Reader

TOKEN_ROLES = frozenset((ApiRole.DISTRICT, ApiRole.CENTRAL, ApiRole.AUDITOR, ApiRole.CONSUMER))
"""Roles that are granted by a token. Teachers and champions come from the roster and speak with their phone."""

SCOPE_ALL, SCOPE_DISTRICT, SCOPE_SCHOOLS = "all", "district", "schools"
_PREFIX = "hudur_"  # so that a token that was published by mistake can be found
_TOKEN_BYTES = 20
_BEARER = "Bearer "
_PROXY_HEADERS = frozenset(("forwarded", "via", "x-real-ip"))


def make_token(ports: ServerPorts) -> str:
    """A fresh token."""
    return _PREFIX + ports.random.bytes(_TOKEN_BYTES).hex()


def digest_of(token: str) -> bytes:
    """What the store knows of a token."""
    return hashlib.sha256(token.encode()).digest()


async def principal_of(request: Request, config: Config, reader: Reader) -> Principal:
    """Who makes this request.

    The operator has the configured token or, on a server without one, sits at this machine; a request that shows a
    token is judged by that token alone.

    Raises:
        RequestProblem: `operator` when nobody can be made out.
    """
    given = request.headers.get("authorization")
    if given is None:
        if config.operator_token is not None:
            raise RequestProblem("operator", "Authorization: Bearer and a token are needed")
        _check_local(request)
        return OPERATOR
    operator = config.operator_token
    if operator is not None and hmac.compare_digest(given.encode(), f"{_BEARER}{operator}".encode()):
        return OPERATOR
    return await holder_of(reader, given.removeprefix(_BEARER))


async def holder_of(reader: Reader, token: str) -> Principal:
    """The holder of a granted token.

    Raises:
        RequestProblem: `operator` when it is unknown or revoked.
    """
    row = await reader.fetch_one(
        "SELECT name, role, scope, district, revoked_ms FROM tokens WHERE digest = ?", (digest_of(token),)
    )
    if row is None:
        raise RequestProblem("operator", "this token is not known here")
    name, role, scope, district, revoked_ms = row
    if revoked_ms is not None:
        raise RequestProblem("operator", "this token was revoked; ask who runs the server")
    schools = await _schools_of(reader, name, scope, district)
    return Principal(role=ApiRole(role), actor=f"token:{name}", schools=schools)


async def _schools_of(reader: Reader, name: str, scope: str, district: str | None) -> frozenset[str] | None:
    if scope == SCOPE_ALL:
        return None
    if scope == SCOPE_DISTRICT:
        rows = await reader.fetch_all("SELECT school FROM places WHERE district = ?", (district,))
    else:
        rows = await reader.fetch_all("SELECT school FROM token_schools WHERE name = ?", (name,))
    return frozenset(row[0] for row in rows)


def _check_local(request: Request) -> None:
    """Without a token: only who sits at this machine, and no program that speaks for somebody elsewhere.

    Raises:
        RequestProblem: `operator`.
    """
    # A page of a foreign site may have its own name point here; it cannot make the browser say another name.
    if not is_loopback(request.url.hostname or "") or request.client is None or not is_loopback(request.client.host):
        raise RequestProblem("operator", "without a token only from this machine, by a loopback address")
    # A proxy on this machine is a loopback peer for the whole world. HTTP/1.0 is what a bare one speaks.
    if request.scope["http_version"] == "1.0" or any(
        name in _PROXY_HEADERS or name.startswith("x-forwarded-") for name in request.headers
    ):
        raise RequestProblem("operator", "behind a proxy a token is needed: set HUDUR_OPERATOR_TOKEN")
