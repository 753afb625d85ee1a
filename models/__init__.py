"""Networks, tasks, losses and weights; independent of data sets."""
