"""The benchmark against peers: what it counts and compares, and that it shows nothing when they cannot be had."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from bench.peers.install import PeersMissing, installed
from bench.peers.measure import Found
from bench.peers.table import result_of
from bench.peers.tap import tap
from bench.report import TEXTS


def found(short: str, *, cpu_s: float, ours_cpu_s: float, fsync: bool | None = None) -> Found:
    return Found(
        peer=short, short=short, version="1", complete="", pushes=500, cpu_s=cpu_s,
        ours_pushes=1_000, ours_cpu_s=ours_cpu_s, fsync_before_ack=fsync,
    )  # fmt: skip


RUN = (
    found("hudur", cpu_s=0.2, ours_cpu_s=0.3, fsync=True),
    found("automerge", cpu_s=4.5, ours_cpu_s=0.3),
    found("pouchdb", cpu_s=1.2, ours_cpu_s=0.4),
    found("put", cpu_s=0.9, ours_cpu_s=0.3, fsync=False),
)


def answer_each(listener: socket.socket, request: int, reply: bytes) -> None:
    """A server: for every `request` bytes it sends `reply`, until the device goes."""
    connection, _ = listener.accept()
    with connection:
        while connection.recv(request, socket.MSG_WAITALL):
            connection.sendall(reply)


def test_the_tap_counts_the_payload_of_both_directions_and_hands_it_on_whole() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=answer_each, args=(listener, 1_000, b"x" * 77))
        server.start()
        with tap(listener.getsockname()[1], round_trip_s=0.02) as relay:
            with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as device:
                for _ in range(3):
                    device.sendall(b"a" * 1_000)
                    assert device.recv(77, socket.MSG_WAITALL) == b"x" * 77
            assert relay.take() == (3_000, 231)
            assert relay.take() == (0, 0)
        server.join(timeout=10)


def test_a_ratio_compares_a_peer_with_our_rounds_beside_it() -> None:
    ratios = {row.name: row for row in result_of(RUN).rows if row.unit == "×"}
    assert {name: round(row.value, 6) for name, row in ratios.items()} == {
        "automerge": 30, "pouchdb": 6, "put": 6, "the cheapest peer": 6,
    }  # fmt: skip
    assert [ratios[name].met for name in ("automerge", "pouchdb", "put", "the cheapest peer")] == [
        True, False, None, True,
    ]  # fmt: skip


def test_what_could_not_be_told_of_an_fsync_is_unknown() -> None:
    notes = [row.note for row in result_of(RUN).rows if row.group == "acknowledged and lost under SIGKILL"]
    assert notes == [
        "an fsync is behind the acknowledgement", "fsync: unknown", "fsync: unknown", "no fsync is behind it",
    ]  # fmt: skip


def test_every_table_of_the_page_is_a_group_of_the_result() -> None:
    text = (TEXTS / "peers.md").read_text("utf-8")
    named = [line.partition(": ")[2] for line in text.splitlines() if line.startswith("@table")]
    assert sorted(named) == sorted({row.group for row in result_of(RUN).rows})


def test_without_the_registry_the_benchmark_ends_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, script in {"npm": "echo 'npm error no registry' >&2; exit 1", "node": "exit 0"}.items():
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(PeersMissing, match=r"nothing was measured.*no registry"), installed():
        pytest.fail("measured without peers")
