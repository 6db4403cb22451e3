"""`python -m bench [NAME …]`: run benchmarks and print their tables; without a name, all of them."""

from __future__ import annotations

import importlib
import sys

NAMES = ("wire", "push", "settle", "phone", "governorate")


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in names or NAMES:
        importlib.import_module(f"bench.{name}").main()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
