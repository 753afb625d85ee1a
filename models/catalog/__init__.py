"""Backbones, weights and architectures that can be named. Needs no torch."""
