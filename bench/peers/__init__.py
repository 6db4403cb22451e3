"""The same work against peers, in one run: `python -m bench peers`, or `python -m bench.peers [--quick] [--keep DIR]`.

The work: one device, one register of 40 pupils (status and time of capture), pushed on a fresh connection without TLS;
later three corrections on another one. Peers come from npm into a temporary folder (`install`), their devices run in a
process of their own (`node`), and rounds alternate with ours (`measure`). CPU-seconds are the server's, user + system;
bytes are TCP payload, headers included; round trips contain the TCP handshake. Every peer holds the same values as
plain as it can. None of them checks a signature or what it stores; Hudur does both. Nothing is settled while
measuring, with nobody.

CouchDB itself is neither in Debian nor in npm; what speaks its protocol here is express-pouchdb over LevelDB.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from bench.peers.install import installed, versions
from bench.peers.measure import Found, Runner, measure, needed
from bench.peers.node import KINDS, Peer
from bench.peers.ours import PHONES, Ours
from bench.peers.table import result_of
from bench.results import Result, show
from bench.site import site


def run(*, quick: bool, console: Console) -> Result:
    """Install the peers, measure everyone, remove the peers."""
    return result_of(find(quick=quick, console=console))


def find(*, quick: bool, console: Console, keep: Path | None = None) -> list[Found]:
    """What each contestant costs, ours first."""
    rounds, each = (2, 200) if quick else (4, 250)
    with ExitStack() as stack:
        terminated = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # cleans up as others do
        stack.callback(signal.signal, signal.SIGTERM, terminated)
        console.print("installing the peers from npm")
        folder = stack.enter_context(installed(keep))
        ours = Ours(stack.enter_context(site(phones=PHONES, settle=False)))
        work = folder / "work.json"
        ours.write_work(work, needed(rounds, each))
        peers = []
        for kind in KINDS:
            peer = Peer(kind, folder, work)
            stack.callback(peer.close)
            peers.append(Runner(peer, version=versions(folder, kind.packages), complete=kind.complete))
        own = Runner(ours, version="this commit", complete="a signed receipt says durable")
        return measure(own, peers, rounds=rounds, each=each, console=console)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print, store nothing; with `--keep` the installed peers stay in a folder for another run."""
    arguments = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="measure less")
    arguments.add_argument("--keep", type=Path, metavar="DIR", help="install there, and leave it")
    given = arguments.parse_args(words)
    console = Console(width=140)
    show(result_of(find(quick=given.quick, console=console, keep=given.keep)), console)
    return 0
