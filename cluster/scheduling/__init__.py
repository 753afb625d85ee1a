"""A graph of stages as one Ray Tune run."""
