"""What is known about the layout of a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Settings of a data set with the reasons for them.

    Attributes:
        layout: The layout in a few words.
        settings: Keys of the data set in a study file, without `root`.
        assumed: What was concluded from names and values.
        unknown: What files do not tell.
        check: What a user should check.
    """

    layout: str
    settings: Mapping[str, object]
    assumed: Sequence[str] = field(default=())
    unknown: Sequence[str] = field(default=())
    check: Sequence[str] = field(default=())
