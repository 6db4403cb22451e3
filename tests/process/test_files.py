"""What a running server leaves in the file system."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from tests.process.test_kills import prepare, server

pytestmark = pytest.mark.process


def test_every_file_of_the_store_is_for_its_owner_alone(tmp_path: Path) -> None:
    """The store, its -wal and -shm, its lock and its address: the signing key and names are in there."""
    path = tmp_path / "new" / "store.db"
    asyncio.run(prepare(path))
    with server(path):
        modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
        assert modes == dict.fromkeys((f"store.db{end}" for end in ("", "-wal", "-shm", ".lock", ".server")), 0o600)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_store_keeps_the_rights_its_operator_gave_it(tmp_path: Path) -> None:
    """Made readable for a backup group on purpose, it stays so."""
    path = tmp_path / "store.db"
    asyncio.run(prepare(path))
    path.chmod(0o640)
    with server(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
