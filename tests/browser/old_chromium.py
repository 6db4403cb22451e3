"""Chromium builds of other years, as npm packages carry them, unpacked into the ignored `.browsers/` folder.

    python -m tests.browser.old_chromium     fetch all of them and print what each one says its version is

64 is the floor of the phone's page, 109 the last one for many old systems, 138 the last one for Android 8 and 9. They
are 40 to 70 MB each (100 to 190 unpacked), so they are fetched on demand and kept. They link against libnss3, libnspr4
and libexpat1 only, which Debian's `chromium` package depends on too.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.chromium import Chromium

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".browsers"
CURRENT = "current"
CURRENT_BINARY = Path("/usr/bin/chromium")

# Brotli is not in Python's library; Node has it, and Node builds the page anyway.
_UNBROTLI = """const fs = require('fs'), zlib = require('zlib');
fs.createReadStream(process.argv[1]).pipe(zlib.createBrotliDecompress()).pipe(fs.createWriteStream(process.argv[2]));"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """Where one old build comes from: an npm package that holds `bin/chromium*.br`."""

    major: str
    package: str
    version: str

    @property
    def binary(self) -> Path:
        """The executable, once `fetch` has put it there."""
        return FOLDER / f"chromium-{self.major}"


BUILDS = {
    build.major: build
    for build in (
        Build(major="64", package="chrome-aws-lambda", version="64.0.3264"),
        Build(major="109", package="@sparticuz/chromium", version="109.0.6"),
        Build(major="138", package="@sparticuz/chromium", version="138.0.2"),
    )
}
# No zygote: the old ones cannot fork it inside a container.
FLAGS = ("--no-zygote", "--disable-software-rasterizer")


def fetch(major: str) -> Path:
    """Path of the executable of `major` ("64", "109", "138" or "current"), fetched where it is not there yet.

    Raises:
        AssertionError: When it cannot be had; a browser that is missing is a failure, never a skip.
    """
    if major == CURRENT:
        assert CURRENT_BINARY.exists(), "Chromium is missing: make browser-ready"
        return CURRENT_BINARY
    build = BUILDS[major]
    if not build.binary.exists():
        _unpack(_download(build), build)
    return build.binary


def flags_of(major: str) -> tuple[str, ...]:
    """Extra flags for this build."""
    return () if major == CURRENT else FLAGS


def version_of(major: str, profile: Path) -> str:
    """What the running build says of itself, such as "64.0.3264.0"; the old ones do not know `--version`."""
    with Chromium(profile, binary=str(fetch(major)), flags=flags_of(major)) as browser:
        agent = str(browser.page().evaluate("navigator.userAgent"))
    return agent.partition("Chrome/")[2].partition(" ")[0]


def _download(build: Build) -> Path:
    FOLDER.mkdir(exist_ok=True)
    done = subprocess.run(
        ["npm", "pack", "--silent", f"{build.package}@{build.version}"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"npm pack {build.package}@{build.version} failed:\n{done.stderr}"
    return FOLDER / done.stdout.strip().splitlines()[-1]


def _unpack(archive: Path, build: Build) -> None:
    """Write the executable in one step, so that a fetch that is cut short leaves none behind."""
    with tarfile.open(archive) as package:
        inside = next(m for m in package if m.name.startswith("package/bin/chromium") and m.name.endswith(".br"))
        source = package.extractfile(inside)
        assert source is not None
        packed = FOLDER / f"{build.major}.br"
        packed.write_bytes(source.read())
    plain = packed.with_suffix(".part")
    subprocess.run(["node", "-e", _UNBROTLI, str(packed), str(plain)], check=True, timeout=300)
    plain.chmod(0o755)
    plain.rename(build.binary)
    packed.unlink()
    archive.unlink()


if __name__ == "__main__":
    for name in (*BUILDS, CURRENT):
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(f"{name:8} {version_of(name, Path(folder))}\n")
