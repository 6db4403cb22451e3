"""One process of the crew: jobs come in on standard input, line by line; records go out on standard output.

    python -m tests.simulator.child CPU_S [SABOTEUR]

A saboteur has to be planted before anything of the product is imported; so the imports stand where they do.
"""

from __future__ import annotations

import os
import resource
import sys

from tests.simulator.saboteurs import BY_NAME
from tests.simulator.saboteurs.hook import install

READY = "tests.simulator.child ready"
MEMORY_BYTES_MAX = 4 << 30
NICE = 5


def serve(cpu_s: int, saboteur: str | None) -> None:
    """Play worlds until the input ends; one that needs more processor time than `cpu_s` ends the process (SIGXCPU)."""
    if saboteur is not None:
        install(BY_NAME[saboteur])
    from tests.simulator.record import Job, play

    os.nice(NICE)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    sys.stderr.write(f"{READY}\n")
    sys.stderr.flush()
    for line in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit_s = int(used.ru_utime + used.ru_stime) + cpu_s + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, resource.RLIM_INFINITY))
        sys.stdout.write(f"{play(Job.from_json(line)).to_json()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
