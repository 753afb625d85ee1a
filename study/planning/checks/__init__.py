"""Checks of a study that need no training, one module per kind of problem."""
