"""``python -m pyg_fullgraph``: the command line."""

from pyg_fullgraph.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
