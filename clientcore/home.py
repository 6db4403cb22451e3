"""The home directory of a device: `log.db`, `key.pem` (owner only), `cache.db`, `device.json` (the server's address).

Copy the directory and you have copied the device; the server notices when both copies talk.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clientcore.cache import Cache
from clientcore.errors import BadInput, LocalError, NotEnrolled, StoreError
from clientcore.keys import SigningKey
from clientcore.log import Log

LOG, KEY, CACHE, SETTINGS, LOCK = "log.db", "key.pem", "cache.db", "device.json", "uploading.lock"


class Home:
    """Files of one device."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_new(self) -> bool:
        """Whether no device lives here yet."""
        return not (self.path / KEY).exists() and not (self.path / LOG).exists()

    def open_log(self, *, at_ms: int) -> Log:
        """The log; `at_ms` is the wall clock.

        Raises:
            StoreError: `storage`.
        """
        return Log.open(self.path / LOG, at_ms=at_ms)

    def open_cache(self) -> Cache:
        """The cache, readable by the owner only: it holds names.

        Raises:
            StoreError: `storage`.
        """
        path = self.path / CACHE
        if not path.exists():
            path.touch(mode=0o600)
        return Cache.open(path)

    def key(self) -> SigningKey:
        """The device's key.

        Raises:
            NotEnrolled: when there is none.
        """
        try:
            return SigningKey.from_pem((self.path / KEY).read_bytes())
        except FileNotFoundError:
            raise NotEnrolled("not-enrolled", f"no device lives in {self.path}; enrol first") from None
        except OSError as failed:
            raise StoreError("storage", f"{KEY}: {failed.strerror}") from failed

    def prepare(self) -> SigningKey:
        """Make the directory and a key, unless they are there.

        A key that is there is kept: an enrolment whose answer was lost is repeated with the same key.

        Raises:
            StoreError: `storage`.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self.path / KEY).exists():
                _write_durably(self.path / KEY, SigningKey.generate().to_pem())
        except OSError as failed:
            raise StoreError("storage", f"{self.path}: {failed.strerror}") from failed
        return self.key()

    def server(self) -> str:
        """Address of the server this device was enrolled at.

        Raises:
            NotEnrolled: when it is unknown.
        """
        try:
            settings = json.loads((self.path / SETTINGS).read_bytes())
        except FileNotFoundError:
            raise NotEnrolled("not-enrolled", f"no device lives in {self.path}; enrol first") from None
        except (OSError, ValueError) as broken:
            raise BadInput("bad-settings", f"{SETTINGS} cannot be read: {broken}") from None
        server = settings.get("server") if isinstance(settings, dict) else None
        if not isinstance(server, str):
            raise BadInput("bad-settings", f"{SETTINGS} names no server")
        return server

    def put_server(self, url: str) -> None:
        """Keep the server's address."""
        try:
            _write_durably(self.path / SETTINGS, json.dumps({"server": url}).encode() + b"\n")
        except OSError as failed:
            raise StoreError("storage", f"{SETTINGS}: {failed.strerror}") from failed

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """One conversation at a time per device; the lock ends with its process, however that ends.

        Raises:
            LocalError: `busy-here` when another process of this device is talking to the server.
        """
        with (self.path / LOCK).open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LocalError("busy-here", "another command of this device is talking to the server") from None
            yield


def _write_durably(path: Path, data: bytes) -> None:
    """Whole or not at all, for the owner only."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
