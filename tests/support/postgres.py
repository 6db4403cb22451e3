"""A real PostgreSQL of the tests' own: one private cluster a process, a database for whoever asks, on a free port."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import TypedDict

from syncserver.store.postgres import open_postgres
from tests.support.ports import free_port

_NUMBERS = count(1)
_MADE: list[str] = []  # a store to copy
_QUIET = ("-c", "log_min_messages=error", "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200")


def programs() -> Path:
    """Where `initdb`, `pg_ctl` and the others are: Debian keeps them out of the path."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / "initdb").exists():
            return folder
    found = shutil.which("initdb")
    if found is None:
        raise RuntimeError("PostgreSQL is missing: make postgres-ready")
    return Path(found).resolve().parent


class _Owner(TypedDict, total=False):
    """Who runs PostgreSQL, in the words of `subprocess.run`."""

    user: int
    group: int


def _owner() -> _Owner:
    """PostgreSQL refuses to run as root; the package brings a user of its own."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid}


@dataclass(slots=True)
class Cluster:
    """One running PostgreSQL."""

    folder: Path
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)

    def run(self, program: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One of PostgreSQL's own programs, as its owner."""
        return subprocess.run(
            [str(programs() / program), *args], check=check, capture_output=True, text=True, cwd="/", timeout=120,
            **_owner(),
        )  # fmt: skip

    @property
    def data(self) -> Path:
        """The cluster's files."""
        return self.folder / "data"

    def dsn(self, database: str) -> str:
        """How to reach one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = [*_QUIET, "-c", f"unix_socket_directories={self.folder}", "-p", str(self.port)]
        for name, value in self.settings.items():
            options += ["-c", f"{name}={value}"]
        log = str(self.folder / "log")
        self.run(
            "pg_ctl", "-D", str(self.data), "-w", "-l", log, "-o", " ".join(f"'{one}'" for one in options), "start"
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is its own kill -9."""
        self.run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop", check=False)

    def psql(self, sql: str, database: str = "postgres") -> str:
        """What a statement gives, as text."""
        found = self.run(
            "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-AtqX", "-c", sql, database
        )
        return found.stdout.strip()

    def database(self, like: str = "template1") -> str:
        """The address of a new database: empty, or a copy of another that nobody uses."""
        name = f"hudur_{os.getpid()}_{next(_NUMBERS)}"
        self.psql(f"CREATE DATABASE {name} TEMPLATE {like}")
        return self.dsn(name)


def new_folder() -> Path:
    """A folder the cluster's owner may use."""
    folder = Path(tempfile.mkdtemp(prefix="hudur-pg-"))
    owner = _owner()
    if owner:
        os.chown(folder, owner["user"], owner["group"])
    return folder


def make_cluster(settings: Mapping[str, str] | None = None) -> Cluster:
    """Make and start a cluster."""
    cluster = Cluster(folder=new_folder(), port=free_port(), settings=settings or {})
    cluster.run("initdb", "-D", str(cluster.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
    cluster.start()
    return cluster


def remove_cluster(cluster: Cluster) -> None:
    """Stop it and take it away."""
    cluster.stop("immediate")
    shutil.rmtree(cluster.folder, ignore_errors=True)


@contextmanager
def cluster_of_its_own(settings: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """A cluster for a test that stops it or copies it."""
    cluster = make_cluster(settings)
    try:
        yield cluster
    finally:
        remove_cluster(cluster)


@lru_cache(maxsize=1)
def shared_cluster() -> Cluster:
    """The cluster that all tests of this process share."""
    cluster = make_cluster()
    atexit.register(remove_cluster, cluster)
    return cluster


async def new_store() -> str:
    """The address of an empty store in the shared cluster: a copy of one, a fifth of the work of making the tables."""
    if not _MADE:
        dsn = shared_cluster().database()
        await (await open_postgres(dsn)).close()
        _MADE.append(dsn.rpartition("/")[2])
    return shared_cluster().database(like=_MADE[0])
