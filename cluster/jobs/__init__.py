"""Studies as jobs of a remote cluster, through Ray's Jobs API."""
