"""A page as PDF, printed by a Chromium of this machine: no PDF library joins Arabic letters as a browser does."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from clientcore.errors import BadInput

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-pdf-header-footer",
)
_DEADLINE_S = 60


def print_pdf(page: bytes, *, browser: str | None = None) -> bytes:
    """An HTML file as PDF.

    Args:
        page: The file.
        browser: Program to print with; by default the first of `BROWSERS` that is installed.

    Raises:
        BadInput: `no-browser`, `not-printed`.
    """
    program = browser or next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        raise BadInput("no-browser", f"a PDF needs one of {', '.join(BROWSERS)}; without it, print the HTML file")
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "sheet.html"), Path(folder, "sheet.pdf")
        source.write_bytes(page)
        command = [program, *FLAGS, f"--user-data-dir={folder}/profile", f"--print-to-pdf={out}", source.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, timeout=_DEADLINE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as failed:
            raise BadInput("not-printed", f"{program}: {type(failed).__name__}") from None
        if done.returncode or not out.exists():
            raise BadInput("not-printed", f"{program} ended with {done.returncode}")
        return out.read_bytes()
