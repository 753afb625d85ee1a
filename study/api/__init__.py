"""The Python API: `from study import Study`."""

from study.api.study import Study

__all__ = ["Study"]
