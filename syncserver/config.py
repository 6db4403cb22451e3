"""The server's configuration: one value, read once from the environment and the command line."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from syncserver.errors import ConfigError

_ENV = re.compile(r"[a-z0-9-]{1,16}")
_POSTGRES = ("postgresql://", "postgres://")


SCOPE_DEFAULT = "https://purl.imsglobal.org/spec/or/v1p2/scope/roster.readonly"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """Where the school system answers, and what we show it: a token that never changes, or a client's credentials.

    Attributes:
        url: What stands before `/ims/oneroster/…`; https, to this machine itself also http.
        token: A bearer token.
        client_id: OAuth 2 client credentials, with `client_secret` and `token_url`.
        client_secret: See `client_id`.
        token_url: Where tokens are made.
        scope: What is asked for there.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    token_url: str | None = None
    scope: str = SCOPE_DEFAULT

    def __post_init__(self) -> None:
        _check_address("HUDUR_UPSTREAM_URL", self.url)
        client = (self.client_id, self.client_secret, self.token_url)
        if (self.token is None) == (None in client) or (self.token is not None and any(client)):
            raise ConfigError(
                "bad-config",
                "set HUDUR_UPSTREAM_TOKEN, or HUDUR_UPSTREAM_CLIENT_ID, HUDUR_UPSTREAM_CLIENT_SECRET and "
                "HUDUR_UPSTREAM_TOKEN_URL, and not both",
            )
        if self.token_url is not None:
            _check_address("HUDUR_UPSTREAM_TOKEN_URL", self.token_url)


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """A database of a PostgreSQL server, `postgresql://user:password@host:port/database`.

    `str` and `repr` leave the password out; only `dsn` has it, for whoever connects.
    """

    dsn: str = field(repr=False)

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.dsn)
            has_port = parts.port != 0
        except ValueError:  # its text may hold the password
            parts, has_port = urlsplit(""), False
        if not has_port or not self.dsn.startswith(_POSTGRES) or not parts.path.strip("/") or parts.fragment:
            raise ConfigError("bad-config", "PostgreSQL is reached as postgresql://user:password@host:port/database")

    def __str__(self) -> str:
        parts = urlsplit(self.dsn)
        user = f"{parts.username}@" if parts.username else ""
        return f"postgresql://{user}{parts.netloc.rpartition('@')[2]}{parts.path}"


StoreAddress = Path | PostgresAddress
"""Where a store is: the SQLite file, or the PostgreSQL database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How one server runs.

    Attributes:
        store: The SQLite file or the PostgreSQL database.
        host: Address to listen on. Anything but loopback needs `operator_token`.
        port: TCP port; 0 takes a free one.
        env: Environment name devices are bound to at enrolment; a frame of another one is refused.
        zone: The schools' time zone (IANA name).
        operator_token: Bearer token of the operator routes, or None.
        delay_target_ms: Delay of today's registers, from arrival to receipt, that may stand; else `busy` is answered.
        delay_interval_ms: For how long even the shortest delay must be above the target.
        inside_max: Requests of devices being worked on at once; the others wait at the entrance, the most urgent first.
        waiting_max: Requests that may wait there, whatever the delay.
        waiting_bytes_max: Bytes of their bodies.
        batch_max: Pushes in one commit.
        device_burst: Requests a device may make at once.
        device_per_minute: Requests a device may make per minute in the long run.
        codes_per_minute: Enrolment tries per school and minute.
        poll_ms: How long the settle stage sleeps when nobody wakes it.
        gather_ms: How long the settle stage lets changes come together once one has come.
        settle_batch: Changes the settle stage takes in one transaction.
        consumes: Whether this process settles the log as well; several share its partitions among them.
        pending_days: Days after which a change whose dependencies never came becomes a dead letter.
        replica: A hot standby of the store, which answers roster pulls, reports and events; None: the store does.
        replica_stale_max_s: How old what it says may be, in seconds.
        upstream: The school system that rosters come from and attendance goes back to; None: there is none.
    """

    store: StoreAddress
    host: str = "127.0.0.1"
    port: int = 8000
    env: str = "demo"
    zone: str = "Africa/Cairo"
    operator_token: str | None = field(default=None, repr=False)
    delay_target_ms: int = 250
    delay_interval_ms: int = 1_000
    inside_max: int = 256
    waiting_max: int = 2_048  # at a thousand a second the last of them waits two seconds
    waiting_bytes_max: int = 64 * 1_048_576
    batch_max: int = 256
    device_burst: int = 60
    device_per_minute: int = 120
    codes_per_minute: int = 60
    poll_ms: int = 1_000
    gather_ms: int = 200
    settle_batch: int = 256
    pending_days: int = 3
    consumes: bool = True
    replica: PostgresAddress | None = None
    replica_stale_max_s: int = 30
    upstream: UpstreamConfig | None = None

    def __post_init__(self) -> None:
        if _ENV.fullmatch(self.env) is None:
            raise ConfigError("bad-config", f"HUDUR_ENV needs 1 to 16 of a-z 0-9 -, not {self.env!r}")
        if not 0 <= self.port <= 65_535:
            raise ConfigError("bad-config", f"the port is 0 to 65535, not {self.port}")
        if self.replica is not None and not isinstance(self.store, PostgresAddress):
            raise ConfigError("bad-config", "HUDUR_REPLICA is a standby of a store in PostgreSQL")
        if not self.is_loopback and self.operator_token is None:
            raise ConfigError(
                "bad-config",
                f"set HUDUR_OPERATOR_TOKEN before listening on {self.host}: events and metrics would be open",
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_address(setting: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    plain = bool(host) and parts.username is None and not parts.query and not parts.fragment
    if not plain or parts.scheme not in ("https", "http"):
        raise ConfigError("bad-config", f"{setting} is https://host/path, without a name, password, query or fragment")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError("bad-config", f"{setting}: https only; http reaches this machine alone")


def read_upstream(environment: Mapping[str, str]) -> UpstreamConfig | None:
    """The school system's settings, HUDUR_UPSTREAM_*; None where no HUDUR_UPSTREAM_URL is set.

    Raises:
        ConfigError: says what to change.
    """
    said = {
        name: environment.get(f"HUDUR_UPSTREAM_{name.upper()}") or None
        for name in ("token", "client_id", "client_secret", "token_url")
    }
    url = environment.get("HUDUR_UPSTREAM_URL")
    if not url:
        return None
    return UpstreamConfig(url=url.rstrip("/"), **said, scope=environment.get("HUDUR_UPSTREAM_SCOPE") or SCOPE_DEFAULT)


def store_address(text: str) -> StoreAddress:
    """What `sqlite:PATH` or `postgresql://…` names.

    Raises:
        ConfigError: for another kind of store.
    """
    if text.startswith(_POSTGRES):
        return PostgresAddress(text)
    kind, _, path = text.partition(":")
    if kind != "sqlite" or not path:  # the text itself is not told: it may hold a password
        raise ConfigError("bad-config", "the store is sqlite:PATH or postgresql://user:password@host/database")
    return Path(path)


def store_text(address: StoreAddress) -> str:
    """An address as people may see it: without a password."""
    return f"sqlite:{address}" if isinstance(address, Path) else str(address)


def store_path(text: str) -> Path:
    """The file of `sqlite:PATH`, for what works on files only.

    Raises:
        ConfigError: for another kind of store.
    """
    address = store_address(text)
    if isinstance(address, PostgresAddress):
        raise ConfigError(
            "bad-config",
            "this works on the file of a SQLite store: of PostgreSQL take copies with pg_basebackup, or bring it into "
            "a file with `hudur migrate` and prove that",
        )
    return address


def _milliseconds(environment: Mapping[str, str], setting: str, default: int) -> int:
    text = environment.get(setting) or str(default)
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or not 1 <= int(text) <= 60_000:
        raise ConfigError("bad-config", f"{setting} is 1 to 60000 milliseconds, not {text!r}")
    return int(text)


def _seconds(environment: Mapping[str, str], setting: str, default: int) -> int:
    text = environment.get(setting) or str(default)
    if not (text.isascii() and text.isdecimal()) or len(text) > 4 or not 2 <= int(text) <= 3_600:
        raise ConfigError("bad-config", f"{setting} is 2 to 3600 seconds, not {text!r}")
    return int(text)


def read_config(
    environment: Mapping[str, str], *, store: str | StoreAddress, host: str | None = None, port: int | None = None
) -> Config:
    """Configuration from an environment mapping, the command line winning.

    Args:
        environment: Usually `os.environ`. Read: HUDUR_HOST, PORT, HUDUR_ENV, HUDUR_ZONE, HUDUR_OPERATOR_TOKEN,
            HUDUR_DELAY_TARGET_MS, HUDUR_DELAY_INTERVAL_MS, HUDUR_REPLICA, HUDUR_REPLICA_STALE_MAX_S, HUDUR_UPSTREAM_*.
        store: An address, or what `store_address` reads.
        host: Address to listen on.
        port: TCP port.

    Raises:
        ConfigError: says what to change.
    """
    text = environment.get("PORT", "8000")
    if port is None and not text.isdecimal():
        raise ConfigError("bad-config", f"PORT is a number, not {text!r}")
    return Config(
        store=store_address(store) if isinstance(store, str) else store,
        host=host or environment.get("HUDUR_HOST", "127.0.0.1"),
        port=port if port is not None else int(text),
        env=environment.get("HUDUR_ENV", "demo"),
        zone=environment.get("HUDUR_ZONE", "Africa/Cairo"),
        operator_token=environment.get("HUDUR_OPERATOR_TOKEN") or None,
        delay_target_ms=_milliseconds(environment, "HUDUR_DELAY_TARGET_MS", 250),
        delay_interval_ms=_milliseconds(environment, "HUDUR_DELAY_INTERVAL_MS", 1_000),
        replica=PostgresAddress(environment["HUDUR_REPLICA"]) if environment.get("HUDUR_REPLICA") else None,
        replica_stale_max_s=_seconds(environment, "HUDUR_REPLICA_STALE_MAX_S", 30),
        upstream=read_upstream(environment),
    )
