"""Discriminators of label maps."""
