"""The study: its file, plan, store, training, command line and Python API.

The package exports `Study` alone, which is imported when it is first used, so that commands start fast.
"""

from typing import TYPE_CHECKING

__all__ = ["Study"]

if TYPE_CHECKING:
    from study.api import Study
else:

    def __getattr__(name: str) -> object:
        """Import and return `Study`."""
        if name == "Study":
            from study.api import Study

            return Study
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)


def __dir__() -> list[str]:
    """Return the names of the module, with `Study` before it is imported."""
    return sorted({*globals(), *__all__})
