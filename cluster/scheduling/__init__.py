"""Running a graph of stages on a cluster, as one Ray Tune run."""
