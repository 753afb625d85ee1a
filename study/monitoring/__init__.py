"""Progress of a study: its heartbeat, status, estimates and trackers."""
