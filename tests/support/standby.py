"""A hot standby of a test's cluster, fed by streaming replication."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.ports import free_port
from tests.support.postgres import Cluster, new_folder, remove_cluster


@contextmanager
def standby_of(primary: Cluster) -> Iterator[Cluster]:
    """A second cluster that follows `primary`."""
    standby = Cluster(folder=new_folder(), port=free_port())
    try:
        primary.run(
            "pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "-D", str(standby.data),
            "-R", "-X", "stream", "-c", "fast",
        )  # fmt: skip
        standby.start()
        yield standby
    finally:
        remove_cluster(standby)


def catch_up(primary: Cluster, standby: Cluster) -> bool:
    """Whether the standby shows everything the primary has committed by now."""
    here = primary.psql("SELECT pg_current_wal_lsn()")
    return standby.psql(f"SELECT pg_last_wal_replay_lsn() >= '{here}'::pg_lsn") == "t"
