"""Files for the server's own user: the store holds the signing key and pupils' names, and so does all beside it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

OWNER_ONLY = 0o600
FOLDER_OWNER_ONLY = 0o700


def touch_private(path: Path) -> None:
    """Make an empty file that only its owner reads; one that exists stays as it is, with the rights it was given."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, OWNER_ONLY))


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, also when it was there with wider rights before."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, OWNER_ONLY), "wb") as file:
        os.fchmod(file.fileno(), OWNER_ONLY)
        file.truncate(0)
        file.write(data)


def write_synced(path: Path, data: bytes) -> None:
    """Write a small file that only its owner reads; its bytes are synced then (its name: `sync_folder`)."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, OWNER_ONLY), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: what was created, renamed or removed there."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
