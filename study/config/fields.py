"""Types shared by the settings of a study file."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=1, le=10**6)]
"""Number of epochs, images in a batch, or trials."""
Machines = Annotated[int, Field(ge=1, le=4096)]
"""Number of CPU cores or processes."""
MAX_LISTED = 1000
"""Maximum length of a list: values of a factor, seeds, points of a search."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def each_once(values: Sequence[object] | None) -> Sequence[object] | None:
    """Return the list unchanged. Raises `ValueError` if a value is repeated."""
    repeated = sorted({str(value) for value in values or () if list(values or ()).count(value) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} appears twice; allowed: each value once; remove the repetition")
    return values


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
