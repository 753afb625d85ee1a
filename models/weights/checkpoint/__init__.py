"""Encoder weights from checkpoints of other software: files, rules for names, and strict matching."""
