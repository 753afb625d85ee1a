"""Comparison of two studies, and whether they were scored on the same test images by the same evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from results.tables.side_by_side import side_by_side
from study.analysis.derived_cache import study_table
from study.analysis.imported.study import is_imported, read_stored_values, test_images
from study.analysis.tables import read_comparisons
from study.errors import ConfigError, Problem
from study.store.paths import RESULTS
from study.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from results.tables.layout import Table


@dataclass(frozen=True, kw_only=True)
class EvaluationConditions:
    """Test images and scoring keys of a study's replicates, by fold and seed.

    A key identifies size, threshold, version of the evaluation, and the cases with their masks.
    """

    name: str
    images: dict[tuple[int, int], frozenset[str]]
    keys: dict[tuple[int, int], str]

    @property
    def all_images(self) -> frozenset[str]:
        """Return the test images of all folds and seeds."""
        return frozenset().union(*self.images.values())


def compare_two_studies(storage: Path, names: Sequence[str], filters: "Mapping[str, str]") -> "Table":
    """Return a table of two studies side by side, with notes on differences between them.

    Args:
        storage: The storage with both studies.
        names: The names of the two studies.
        filters: Values of `split`, `aggregation`, `metric` and `class`.

    Raises:
        ConfigError: A study has no comparisons, or the studies share no cells.
    """
    store = Store(storage)
    first_table, second_table = (read_comparisons(store.study(name), filters) for name in names)
    first, second = (read_conditions(store, name) for name in names)
    notes = list(comparability_notes(first, second))
    comparable = first.all_images == second.all_images
    try:
        return side_by_side(first_table, second_table, filters, comparable=comparable, notes=notes)
    except ValueError as error:
        raise ConfigError([Problem(path="", message=str(error))], " ".join(names)) from error


def read_conditions(store: Store, name: str) -> EvaluationConditions:
    """Return the conditions of a study, read from one replicate of each fold and seed."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if is_imported(store.study(name)):
        images = dict(test_images(read_stored_values(store.study(name))))
        return EvaluationConditions(name=name, images=images, keys=dict.fromkeys(images, "imported"))
    columns = ["fold", "seed", "digest", "scoring"]
    file = study_table(store.study(name), RESULTS, columns)
    replicates = pq.read_table(file, columns=columns).group_by(["fold", "seed"], use_threads=False)
    images, keys = {}, {}
    for row in replicates.aggregate([("digest", "first"), ("scoring", "first")]).to_pylist():
        key = row["fold"], row["seed"]
        digest, keys[key] = row["digest_first"], row["scoring_first"]
        table = pq.read_table(store.images(digest, keys[key]), columns=["image", "split"])
        images[key] = frozenset(table.filter(pc.equal(table["split"], "test"))["image"].to_pylist())
    return EvaluationConditions(name=name, images=images, keys=keys)


def comparability_notes(first: EvaluationConditions, second: EvaluationConditions) -> Iterator[str]:
    """Yield notes on differences that limit the comparison of two studies."""
    unknown_images = [study.name for study in (first, second) if not study.images]
    if unknown_images:
        yield f"Test images of {' and '.join(unknown_images)} are not known: whether they are the same is not checked."
        return
    first_images, second_images = first.all_images, second.all_images
    if first_images != second_images:
        yield (
            f"Test images differ: {len(first_images & second_images)} shared, "
            f"{len(first_images - second_images)} only in {first.name}, "
            f"{len(second_images - first_images)} only in {second.name}. Means are shown without a difference."
        )
        return
    shared = first.images.keys() & second.images.keys()
    if any(first.images[key] != second.images[key] for key in shared):
        yield "The test images are the same, in other folds."
    elif any(first.keys[key] != second.keys[key] for key in shared):
        yield (
            "Scored differently: size, threshold, masks or the version of the evaluation differ. "
            "Differences may come from that."
        )
    first_counts, second_counts = _folds_and_seeds(first), _folds_and_seeds(second)
    if first_counts != second_counts:
        yield f"Folds x seeds differ: {first.name} {first_counts}, {second.name} {second_counts}."


def _folds_and_seeds(conditions: EvaluationConditions) -> str:
    folds, seeds = {fold for fold, _ in conditions.images}, {seed for _, seed in conditions.images}
    return f"{len(folds)} x {len(seeds)}"
