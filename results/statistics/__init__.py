"""Intervals, tests and comparisons of a study's cells, and the claim that each supports."""
