"""Checks of a study before it runs, one module per kind of problem."""
