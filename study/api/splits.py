"""How the images of the target of a study are split, as a data frame."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from study.planning.graph import Plan

if TYPE_CHECKING:
    import pandas as pd

ROLES = ("labelled", "validation", "unlabelled", "test")


def split_rows(plan: Plan) -> "pd.DataFrame":
    """Return one row per image x fold x seed x amount of labelled data; see `Study.splits`."""
    import pandas as pd

    return pd.DataFrame(_rows(plan))


def _rows(plan: Plan) -> Iterator[dict[str, Any]]:
    compare, view = plan.spec.compare, plan.views[plan.target]
    index = view.index
    for labelled in compare.labelled:
        for seed in compare.seeds:
            for fold in range(compare.folds):
                split = view.split(fold=fold, seed=seed, labelled=labelled)
                named = {"fold": fold, "seed": seed, compare.level: labelled}
                for role in ROLES:
                    for row in getattr(split, role):
                        yield {"image": index.ids[row], "patient": index.patients[row], **named, "role": role}
