"""One stage on a worker: set up, train, score, publish."""
