"""Optimizers, schedules and averaged weights."""
