"""Settings of tasks with several modules, as written in a study file. None imports torch."""
