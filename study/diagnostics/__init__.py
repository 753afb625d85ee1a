"""Checks of the machine, the data and the storage."""
