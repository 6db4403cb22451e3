"""The peers from npm in a temporary folder: never in the repository, removed afterwards.

Versions are the ones in package.json; what was really installed is read back and told with the figures.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
INSTALL = (
    "npm",
    "install",
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--no-package-lock",
    "--loglevel=error",
    "--fetch-retries=1",
)
INSTALL_S = 240


class PeersMissing(SystemExit):
    """The peers cannot be had here: no Node, no npm, or no way to its registry."""


@contextmanager
def installed(keep: Path | None = None) -> Iterator[Path]:
    """A folder with our scripts and everything they import; `keep` names a folder that stays and is used again."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise PeersMissing(f"peers: {tool} is not installed; nothing was measured")
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield _install(keep)
        return
    with tempfile.TemporaryDirectory(prefix="hudur-peers-", ignore_cleanup_errors=True) as name:
        yield _install(Path(name))


def _install(folder: Path) -> Path:
    for path in (HERE / "package.json", *HERE.glob("*.mjs")):
        shutil.copy(path, folder)
    try:
        done = subprocess.run(INSTALL, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise PeersMissing(f"peers: npm did not finish within {INSTALL_S} s; nothing was measured") from None
    if done.returncode != 0:
        last = " / ".join(done.stderr.strip().splitlines()[:3])
        raise PeersMissing(f"peers: npm could not install them; nothing was measured. It said: {last}")
    return folder


def versions(folder: Path, packages: tuple[str, ...]) -> str:
    """`name version, …` of installed packages."""
    found = [json.loads((folder / "node_modules" / name / "package.json").read_text("utf-8")) for name in packages]
    return ", ".join(f"{one['name'].removeprefix('@automerge/')} {one['version']}" for one in found)
