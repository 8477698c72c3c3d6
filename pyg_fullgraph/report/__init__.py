"""What a run does and costs, for people: text, and HTML in notebooks."""

from pyg_fullgraph.report.explain import Report, explain

__all__ = ["Report", "explain"]
