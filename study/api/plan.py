"""A checked study that has not run: what it would train, and how long that takes."""

import html
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from study.monitoring.plan_summary import summary_text
from study.planning.graph import Plan, image_epochs
from study.store.store import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class StudyPlan:
    """The facts of `study plan`, made by `Study.plan`.

    `str(plan)` is the text that the command prints.

    Attributes:
        summary: All facts, as `study plan --json` prints them.
    """

    summary: dict[str, Any] = field(repr=False)
    _plan: Plan = field(repr=False)
    _store: Store = field(repr=False)

    @property
    def name(self) -> str:
        """Return the name of the study."""
        return str(self.summary["study"])

    @property
    def arms(self) -> int:
        """Return the number of arms: combinations of the factors that are compared."""
        return int(self.summary["arms"])

    @property
    def cells(self) -> int:
        """Return the number of cells: arms times amounts of labelled data."""
        return int(self.summary["cells"])

    @property
    def replicates(self) -> int:
        """Return the number of replicates: cells times folds times seeds."""
        return int(self.summary["replicates"])

    @property
    def stages_to_run(self) -> int:
        """Return the number of stages that a run trains or scores; others are finished."""
        return int(self.summary["stages"]["to_run"])

    @property
    def seconds(self) -> float | None:
        """Return the forecast time of a run on this machine in s, None if it is unknown."""
        seconds = self.summary["forecast"].get("seconds")
        return None if seconds is None else float(seconds)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what is allowed, but deserves a look."""
        return tuple(self.summary["warnings"])

    @cached_property
    def stages(self) -> "pd.DataFrame":
        """Return one row per unique stage, parents first.

        Columns: `digest`, `stage`, `task`, `data`, `architecture`, `backbone`, `start` (initial weights or the digest
        of the parent), `fold`, `labelled` (fraction or number of images), `seed`, `image_epochs` (training images times
        epochs), `finished`. Values that a stage does not depend on are missing.
        """
        import pandas as pd

        finished = self._store.finished()
        rows = [
            {
                "digest": digest,
                "stage": node.name,
                "task": node.step.settings.task,
                "data": node.selection.data,
                "architecture": node.step.architecture,
                "backbone": node.step.backbone,
                "start": node.start,
                "fold": node.selection.fold,
                "labelled": node.selection.labelled,
                "seed": node.seed,
                "image_epochs": image_epochs(self._plan, node),
                "finished": digest in finished,
            }
            for digest, node in self._plan.nodes.items()
        ]
        return pd.DataFrame(rows).astype({"fold": "Int64"})

    def __repr__(self) -> str:
        return f"StudyPlan({self.name!r}, {self.replicates} replicates, {self.stages_to_run} stages to run)"

    def __str__(self) -> str:
        return summary_text(self.summary)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
