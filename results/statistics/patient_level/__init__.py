"""Inference over the patients of a fixed test set."""
