"""Putting a restored store in the place of another: either the old one stands there or the new one, never a mixture.

A store is up to three files (`STORE`, `-wal`, `-shm`), so no single rename can exchange it, and an old `-wal` beside a
new file would be played into it. Therefore the exchange is written down first (`STORE.restore-plan`, synced). From then
on whoever opens the store finishes the exchange before looking at it, as often as it takes; nothing is ever deleted.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clientcore.ports import Reached, not_watched
from syncserver.errors import StoreFailed, StoreInUse
from syncserver.files import FOLDER_OWNER_ONLY, sync_folder, touch_private, write_synced

_PARTS = ("-wal", "-shm", "")  # the main file last: as long as it has not moved, the others still can


def beside(store: Path, suffix: str) -> Path:
    """A file that belongs to a store by its name."""
    return store.with_name(f"{store.name}{suffix}")


def plan_path(store: Path) -> Path:
    """Where an exchange that must be finished is written down."""
    return beside(store, ".restore-plan")


@contextmanager
def hold(store: Path) -> Iterator[None]:
    """Hold the store's lock, as a server does while it runs.

    Raises:
        StoreInUse: a server holds it.
    """
    store.parent.mkdir(mode=FOLDER_OWNER_ONLY, parents=True, exist_ok=True)
    lock = beside(store, ".lock")
    touch_private(lock)
    with lock.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreInUse("store-in-use", f"a server is running on {store}; stop it first") from None
        yield


def exchange(store: Path, *, new: Path, aside: Path, reached: Reached = not_watched) -> None:
    """Put `new` in the place of `store`, and what stood there at `aside`; all three in one folder, the lock held.

    Returns when it is durable. Once the plan is on disk there is no way back.
    """
    plan = json.dumps({"new": new.name, "aside": aside.name})
    draft = beside(store, ".restore-plan.part")
    write_synced(draft, plan.encode())
    sync_folder(store.parent)
    draft.replace(plan_path(store))
    sync_folder(store.parent)
    reached("restore.after_plan")
    _carry_out(store, new=new, aside=aside, reached=reached)


def finish_exchange(store: Path) -> bool:
    """Finish an exchange that was cut short; returns whether there was one. To be called before a store is opened.

    Raises:
        StoreInUse: the restore is still running.
        StoreFailed: the plan cannot be carried out; nothing was changed by this call.
    """
    if not plan_path(store).exists():
        return False
    with hold(store):
        if not plan_path(store).exists():
            return False  # somebody else has finished it meanwhile
        try:
            plan = json.loads(plan_path(store).read_text("utf-8"))
            new, aside = (store.with_name(Path(plan[name]).name) for name in ("new", "aside"))
        except (ValueError, KeyError, TypeError) as fault:
            raise StoreFailed(
                "restore-plan", f"{plan_path(store)} cannot be read ({fault}); it was synced whole"
            ) from None
        if not new.exists() and not store.exists():
            raise StoreFailed("restore-plan", f"neither {store} nor {new} is there")
        _carry_out(store, new=new, aside=aside, reached=not_watched)
        return True


def _carry_out(store: Path, *, new: Path, aside: Path, reached: Reached) -> None:
    if new.exists():  # else the last rename was made, and only the plan is left
        for part in _PARTS:
            if beside(store, part).exists():
                beside(store, part).rename(beside(aside, part))
                reached("restore.between_moves")
        sync_folder(store.parent)
        new.rename(store)
        sync_folder(store.parent)
    reached("restore.before_done")
    plan_path(store).unlink()
    sync_folder(store.parent)
