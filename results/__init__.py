"""Metrics, statistics, tables and figures, all derived from what the store holds."""
