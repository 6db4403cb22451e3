"""The child of `hudur prove` and `hudur export`: the only place outside the tests where the native Automerge core runs.

The core may panic, abort, hang or swallow memory; here it takes nobody along. Limits are set before it is imported.
One JSON document on stdin (`{"sets": [[chunk hex, …], …], "save": bool}`), then on stdout the line `ready` and one
line for every set, written as soon as it is known: what is missing at the end tells the parent which set killed us.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from typing import Any


def limit_memory(memory_bytes: int) -> None:
    """Never more address space than this, whatever the core tries; no core files either."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_cpu(cpu_s: int) -> None:
    """Never more CPU than this from here on: on a busy machine starting takes longer than any register."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until_s = math.ceil(used.ru_utime + used.ru_stime) + cpu_s
    resource.setrlimit(resource.RLIMIT_CPU, (until_s, until_s))


def answer(core: Any, chunks: list[bytes], save: bool) -> dict[str, Any]:
    """Heads and winning values of a set of chunks by the core's own merge, or how it failed."""
    try:
        document = core.Document.load(b"".join(chunks)) if chunks else core.Document()
        values = {}
        for key in document.keys(core.ROOT):
            (kind, value), _ = document.get(core.ROOT, key)
            values[key] = value if kind == core.ScalarType.Str else f"not a string: {kind}"
        found: dict[str, Any] = {"heads": sorted(bytes(head).hex() for head in document.get_heads()), "values": values}
        if save:
            found["saved"] = bytes(document.save()).hex()
    except BaseException as problem:  # a panic of the core is no Exception
        return {"error": f"{type(problem).__name__}: {problem}"}
    return found


def main() -> None:
    """Set limits (arguments: bytes of memory, seconds of CPU), then answer what stdin asks."""
    limit_memory(int(sys.argv[1]))
    from automerge import core

    asked = json.loads(sys.stdin.read())
    limit_cpu(int(sys.argv[2]))
    sys.stdout.write("ready\n")
    sys.stdout.flush()  # before the first chunk, which may end this process
    for chunks in asked["sets"]:
        found = answer(core, [bytes.fromhex(chunk) for chunk in chunks], asked["save"])
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
