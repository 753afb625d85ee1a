"""Plan a study: build the graph of unique stages from a study file. Imports neither torch nor Ray."""
