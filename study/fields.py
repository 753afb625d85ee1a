"""What settings of a study file are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Count = Annotated[int, Field(ge=1, le=10**6)]
"""Of epochs, images in a batch, trials."""
Machines = Annotated[int, Field(ge=1, le=4096)]
"""Of CPU cores or processes."""
MAX_LISTED = 1000
"""Values of one factor, seeds, points of a search."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Settings(BaseModel):
    """Frozen settings that refuse unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
