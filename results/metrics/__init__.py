"""Metrics from stored counts."""
