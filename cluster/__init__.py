"""The only door to Ray."""

import os

QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "600",
}
"""The study has its own view, its own store and its own way to end: Ray's would say and keep everything twice.

A trial that is stopped has time to end its workers: Tune drops the next one where it does not wait.

Ray reads some of these when it is imported.
"""
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)
