"""The national morning at full size: real frames over real sockets into a real server, and the proof afterwards.

    python -m bench morning                        480,000 sessions, capacity measured, then three times capacity
    python -m bench.morning --sessions 20000       a smaller one

See docs/morning.md for what is simulated and what is not.
"""

from __future__ import annotations

from rich.console import Console

from bench.results import Result


def run(*, quick: bool, console: Console) -> Result:
    """The whole morning; a quick one has 9,600 sessions."""
    from bench.morning.whole import run_whole

    return run_whole(quick=quick, console=console)
