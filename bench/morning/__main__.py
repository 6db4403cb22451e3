"""`python -m bench.morning [--sessions N …]`."""

from __future__ import annotations

import sys

from bench.morning.whole import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
