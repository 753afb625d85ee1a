"""Whether a node of a cluster sees what a study was planned with: the same data, the same storage."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets.errors import DataError
from study.cohort import Cohort, CohortSpec
from study.identity import digest
from study.plan import Plan
from study.store import Store


@dataclass(frozen=True, kw_only=True)
class Footing:
    """What is asked of a node. `marks` tell the data of the plan; `probe` was just written by the driver."""

    data: Mapping[str, CohortSpec]
    marks: Mapping[str, str]
    cache: Path
    probe: Path | None

    def __call__(self) -> str:
        """Return what the node lacks, nothing where it may take part."""
        if self.probe is not None and not self.probe.is_file():
            return f"does not see the storage {self.probe.parent}"
        for name, spec in self.data.items():
            try:
                there = mark(Cohort.open(spec, self.cache))
            except (DataError, OSError) as error:
                return f"cannot read {name}: {error}"
            if there != self.marks[name]:
                return f"has other files under {name} than were planned with"
        return ""


def mark(cohort: Cohort) -> str:
    """Return the digest of what a data set's index says of its images."""
    index = cohort.index
    return digest([list(index.ids), list(index.content), {kind: list(held) for kind, held in index.offers.items()}])


@contextmanager
def footing(plan: Plan, store: Store, cache: Path) -> Iterator[Footing]:
    """Yield the check of this plan; a storage that is reached by a URI is asked of nobody."""
    probe = store.root / f".probe-{uuid.uuid4().hex}" if store.origin is None else None
    if probe is not None:
        probe.touch()
    try:
        yield Footing(
            data={name: cohort.spec for name, cohort in plan.cohorts.items()},
            marks={name: mark(cohort) for name, cohort in plan.cohorts.items()},
            cache=cache,
            probe=probe,
        )
    finally:
        if probe is not None:
            probe.unlink(missing_ok=True)
