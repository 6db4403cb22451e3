"""The figures of two stores beside each other: what is counted, and what is divided by what."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.store import cpu_of, size_of
from bench.store_servers import COMMIT_S, COMMITS, CPU_S, DATABASE_S, ELAPSED_S, PUSHES, rows_of
from tests.support.postgres import cluster_of_its_own


def test_work_of_a_database_session_that_has_ended_is_still_counted_and_so_is_what_it_stored() -> None:
    with cluster_of_its_own() as cluster:
        address = cluster.database()
        name = address.rpartition("/")[2]
        used_s, size = cpu_of(cluster), size_of(cluster, address)
        cluster.psql("CREATE TABLE many AS SELECT i FROM generate_series(1, 300000) AS i", name)
        cluster.psql("SELECT 1")  # the first session has ended
        assert cpu_of(cluster) > used_s
        assert size_of(cluster, address) - size > 300_000 * 4


def test_two_servers_are_told_over_one() -> None:
    one = Counter({PUSHES: 1_000, COMMITS: 50, COMMIT_S: 1.0, CPU_S: 0.4, DATABASE_S: 0.1, ELAPSED_S: 2.0})
    two = Counter({PUSHES: 1_000, COMMITS: 100, COMMIT_S: 3.0, CPU_S: 0.5, DATABASE_S: 0.25, ELAPSED_S: 1.0})
    found = {row.name: row.value for row in rows_of(one, two)}
    assert found["pushes per second, two over one"] == pytest.approx(2)
    assert found["CPU of a push, two over one"] == pytest.approx(1.5)
    assert found["two servers: pushes in one commit, mean"] == pytest.approx(10)
    assert found["two servers: a commit, waits for its lane in it, mean"] == pytest.approx(30)
    assert found["one server: servers"] == pytest.approx(0.4)
