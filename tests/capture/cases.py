"""The core cases of `tests.cases`: one or a few configurations per layer and model."""

from tests.cases.case import TRACE_GRAPH, Case, module_of, replay_graph
from tests.cases.inputs import features
from tests.cases.table import BY_ID
from tests.cases.table import CORE as CASES

__all__ = ["BY_ID", "CASES", "TRACE_GRAPH", "Case", "features", "module_of", "replay_graph"]
