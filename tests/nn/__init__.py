"""Tests of the drop-in layers and of functions as modules."""
