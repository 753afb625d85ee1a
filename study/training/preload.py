"""Import everything that running a stage needs, which takes seconds, before a process gets its first stage.

CUDA is not initialized here: visible GPUs and number of threads are only known with the first stage.
"""

from contextlib import suppress

with suppress(Exception):  # the first stage fails with the same error and reports it
    import study.training.train_stage  # noqa: F401
