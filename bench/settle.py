"""CPU of the settle stage per 1,000 registers of 40 marks: log read, merged, reconciled, outcome and 40 events stored.

The store is filled through the real server with settling switched off; then the real consumer runs over it in this
process, so that `process_time` is its own CPU (SQLite's thread included). Disk is the store's files per register.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.push import measured, requests
from bench.site import site
from syncserver.app import open_server
from syncserver.config import Config
from syncserver.ports import ServerPorts
from syncserver.store.sqlite import open_sqlite


async def settle_all(store: Path) -> tuple[float, int, int]:
    """CPU-seconds, registers and events of settling everything in the store."""
    db = await open_sqlite(store)
    try:
        server = await open_server(Config(store=store), db, ServerPorts())
        began_s = time.process_time()
        while await server.settler.round():
            pass
        used_s = time.process_time() - began_s
        outcomes = await db.fetch_one("SELECT count(*) FROM outcomes")
        events = await db.fetch_one("SELECT max(last_seq) FROM events")
        assert outcomes is not None
        assert events is not None
        return used_s, outcomes[0], events[0]
    finally:
        await db.close()


def stored_bytes(store: Path) -> int:
    """Bytes of the store's files, checkpointed (the server has stopped)."""
    return sum(path.stat().st_size for path in store.parent.glob(store.name + "*"))


def main() -> None:
    """Print the table."""
    console = Console(width=120)
    with site(phones=40, settle=False) as place:
        lines = requests(place, console)
        empty = stored_bytes(place.folder / "store.db")
        asyncio.run(measured(place, lines, fresh=False))
        place.stop()
        store = place.folder / "copy" / "store.db"
        store.parent.mkdir()
        for path in place.folder.glob("store.db*"):
            shutil.copy(path, store.parent / path.name)
        log_bytes = stored_bytes(store) - empty
        used_s, registers, events = asyncio.run(settle_all(store))
        all_bytes = stored_bytes(store) - empty
    table = Table(title=f"Settle: {registers:,} registers, {events:,} events")
    for heading in ("", "measured", "goal"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("CPU-s per 1,000 registers of 40", f"{used_s / registers * 1_000:.2f}", "≤ 1.0")
    table.add_row("disk per register, log side (bytes)", f"{log_bytes / registers:,.0f}", "≤ 1,300")
    table.add_row("disk per register, all (bytes)", f"{all_bytes / registers:,.0f}", "stated")
    console.print(table)
