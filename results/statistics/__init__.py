"""Intervals, tests and comparisons of a study's cells, and what each of them may claim."""
