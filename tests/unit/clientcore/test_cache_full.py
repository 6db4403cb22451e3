"""The cache on a disk that is full: an error of ours, and the log untouched."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from clientcore.cache import Cache, ClassInfo
from clientcore.errors import StoreError
from tests.simulator.disk import Disk


def test_a_full_disk_is_told_as_our_own_error() -> None:
    """Whatever is put into the cache: SQLite's errors do not come out of it (found by the simulator)."""
    disk = Disk("phone", random.Random(1))
    cache = Cache.open(Path("cache.db"), files=disk.files())
    disk.free_bytes = 0
    with pytest.raises(StoreError):
        cache.put_cursor(b"anchor00", bytes(8_000))
    with pytest.raises(StoreError):
        cache.put_roster("c-3a", [(f"s{n:05d}", "name" * 20) for n in range(200)])
    with pytest.raises(StoreError):
        cache.put_classes([ClassInfo(id=f"c{n}", name="name" * 20, grade="3") for n in range(200)])
    disk.free_bytes = None
    cache.put_cursor(b"anchor00", b"cursor")
    assert cache.cursor({b"anchor00"}) == b"cursor"
