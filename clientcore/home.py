"""The home directory of a device: `log.db`, `key.pem` (owner only), `cache.db`, `device.json`.

Copy the directory and you have copied the device; the server notices when both copies talk.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clientcore.cache import Cache
from clientcore.errors import BadInput, LocalError, NotEnrolled, StoreError
from clientcore.keys import SigningKey
from clientcore.log import Log
from clientcore.states import Enrolment

LOG, KEY, CACHE, SETTINGS, LOCK = "log.db", "key.pem", "cache.db", "device.json", "uploading.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`server` is the base URL; `enrolment` repeats the log's `enrol` row."""

    server: str
    enrolment: Enrolment


class Home:
    """Files of one device."""

    def __init__(self, path: Path) -> None:
        self.path = path

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

    @property
    def has_settings(self) -> bool:
        """Whether an enrolment was finished here."""
        return (self.path / SETTINGS).exists()

    def settings(self) -> Settings:
        """Where this device was enrolled, and for whom.

        Raises:
            NotEnrolled: when it is unknown.
            BadInput: `bad-settings` when the file cannot be read.
        """
        try:
            told = json.loads((self.path / SETTINGS).read_bytes())
            return Settings(
                server=str(told["server"]),
                enrolment=Enrolment(
                    env=str(told["env"]),
                    school=str(told["school"]),
                    device=bytes.fromhex(told["device"]),
                    user_id=str(told["user_id"]),
                    role=str(told["role"]),
                    server_key=bytes.fromhex(told["server_key"]),
                    epoch=int(told["epoch"]),
                ),
            )
        except FileNotFoundError:
            raise NotEnrolled("not-enrolled", f"no device lives in {self.path}; enrol first") from None
        except (OSError, ValueError, KeyError, TypeError) as broken:
            raise BadInput("bad-settings", f"{SETTINGS} cannot be read: {type(broken).__name__} {broken}") from None

    def put_settings(self, settings: Settings) -> None:
        """Keep them: the log holds them too, and may be damaged one day."""
        enrolment = settings.enrolment
        told = {
            "server": settings.server,
            "env": enrolment.env,
            "school": enrolment.school,
            "device": enrolment.device.hex(),
            "user_id": enrolment.user_id,
            "role": enrolment.role,
            "server_key": enrolment.server_key.hex(),
            "epoch": enrolment.epoch,
        }
        try:
            _write_durably(self.path / SETTINGS, json.dumps(told, indent=1).encode() + b"\n")
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
