"""The only package that imports Ray: clusters, scheduling and jobs."""

import os

RAY_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",
}
"""Environment variables that turn off Ray's output, loggers and signal handler: the study brings its own.

TUNE_FUNCTION_THREAD_TIMEOUT_S gives a stopped trial time to end its workers; without it Tune drops the next trial.
Set before the first import of Ray, which reads some of them only then.
"""
for _name, _value in RAY_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
