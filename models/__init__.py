"""Networks, tasks, losses and weights. Knows nothing of data sets."""
