"""`python -m bench.peers [--quick] [--keep DIR]`."""

from bench.peers import main

if __name__ == "__main__":
    raise SystemExit(main())
