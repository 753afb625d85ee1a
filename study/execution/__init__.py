"""Running the pending stages of a plan on a cluster."""
