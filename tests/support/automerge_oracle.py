"""The native Automerge core, in a process of its own: it may abort, hang or be killed without taking the tests along.

Protocol: one JSON line in, one out. `{"sets": [[chunk hex, ...], ...]}` gives, per set, `heads`, `values` (winners),
`conflicts` (JS only) and `reloads` (saved and loaded again it is the same), or `error`. `{"seeds", "rounds"}` makes
documents with the core's own encoder. `Oracle.ask` keeps one child alive for thousands of registers.
"""

from __future__ import annotations

import contextlib
import json
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MEMORY_BYTES_MAX = 1 << 31
CPU_S_MAX = 300


class Oracle:
    """A child that answers one line for every line. Use as a context manager."""

    def __init__(self, command: Sequence[str]) -> None:
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 -- closed on exit; a pipe would fill up with panics
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._words, text=True, cwd=ROOT
        )
        resource.prlimit(self._child.pid, resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))  # a core that hangs is ended

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        self._words.close()
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # what was never read by a dead child
                pipe.close()

    def ask(self, question: dict[str, Any]) -> Any:
        """The child's answer; an AssertionError with its last words when it died."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(json.dumps(question) + "\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        if not line:
            status = self._child.wait(10)
            self._words.seek(0)
            raise AssertionError(f"the oracle died ({status}): {self._words.read()[-2_000:]}")
        return json.loads(line)

    def registers(self, sets: Sequence[Sequence[bytes]]) -> list[dict[str, Any]]:
        """Heads, values (and, from JS, all visible values) of each set of chunks."""
        asked = {"sets": [[chunk.hex() for chunk in chunks] for chunks in sets]}
        answer: list[dict[str, Any]] = self.ask(asked)["registers"]
        assert len(answer) == len(sets)
        return answer


def python_oracle() -> Oracle:
    """The `automerge` package (Rust core 0.5.7)."""
    return Oracle([sys.executable, "-m", "tests.support.automerge_oracle"])


def js_oracle() -> Oracle:
    """The npm package @automerge/automerge (Rust core in WebAssembly)."""
    return Oracle(["node", "--max-old-space-size=1024", str(Path(__file__).with_name("automerge_oracle.mjs"))])


def _read(chunks: Sequence[bytes]) -> dict[str, Any]:
    from automerge import core

    try:
        document = core.Document.load(b"".join(chunks))
        found = _state(document)
        again = core.Document.load(document.save())
        found["reloads"] = _state(again) == found
    except Exception as problem:
        return {"error": f"{type(problem).__name__}: {problem}"}
    return found


def _state(document: Any) -> dict[str, Any]:
    from automerge import core

    values = {}
    for key in document.keys(core.ROOT):
        (kind, value), _ = document.get(core.ROOT, key)
        values[key] = value if kind == core.ScalarType.Str else f"not a string: {kind}"
    return {"heads": sorted(head.hex() for head in document.get_heads()), "values": values}


def _make(seed: int, rounds: int) -> dict[str, Any]:
    """Chunks of documents written by the core itself: three authors, forks, merges, deletes of losers."""
    from automerge import core

    source = random.Random(seed)
    documents = [core.Document(actor_id=source.randbytes(16)) for _ in range(3)]
    for _ in range(rounds):
        document = source.choice(documents)
        if source.random() < 0.4:
            document.merge(source.choice([other for other in documents if other is not document]))
        with document.transaction() as transaction:
            for _ in range(source.randint(1, 6)):
                key = f"s{source.randint(0, 4)}"
                transaction.put(core.ROOT, key, core.ScalarType.Str, f"P{source.randint(0, 99_999_999)}")
        del transaction  # it must never outlive the document: that ends in SIGSEGV
    for other in documents[1:]:
        documents[0].merge(other)
    changes = documents[0].get_changes([])
    return {
        "chunks": [bytes(change.raw_bytes).hex() for change in changes],
        "hashes": [bytes(change.hash).hex() for change in changes],
        **_state(documents[0]),
    }


def _serve() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    for line in sys.stdin:
        asked = json.loads(line)
        if "sets" in asked:
            answer = {"registers": [_read([bytes.fromhex(chunk) for chunk in chunks]) for chunks in asked["sets"]]}
        else:
            answer = {"made": [_make(seed, asked["rounds"]) for seed in asked["seeds"]]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
