"""Training, validation and test patients."""
