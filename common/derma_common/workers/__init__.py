"""Processes that work on stream entries, away from any exam: their loop, their start, their metrics."""
