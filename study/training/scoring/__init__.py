"""Scores of a trained stage: counts of pixels by image and class, from which all metrics derive."""
