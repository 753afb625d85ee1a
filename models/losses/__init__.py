"""Losses by name."""
