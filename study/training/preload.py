"""What performing a stage needs, imported: seconds, which a process can spend before it has a stage.

GPUs are not asked for here: which ones a process may see, and how many threads it has, is said by its first stage.
"""

from contextlib import suppress

with suppress(Exception):  # what fails here fails again in the first stage, which tells it
    import study.training.train_stage  # noqa: F401
