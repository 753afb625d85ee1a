"""Catalog of backbones, weights and architectures. Does not import torch."""
