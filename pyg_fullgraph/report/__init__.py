"""What a run does and costs, for people: text, and HTML in notebooks."""

from pyg_fullgraph.report.explain import Report, explain
from pyg_fullgraph.report.whole import whole_notes

__all__ = ["Report", "explain", "whole_notes"]
