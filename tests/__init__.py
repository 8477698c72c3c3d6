"""The tests of pyg_fullgraph.

This is imported before anything that loads torch, so here threads learn to wait without spinning: where several
processes share few cores, spinning made the tests burn half as much processor time again.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
