"""Whether two studies were scored alike: on the same test images, by the same evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from results.tables.side_by_side import side_by_side
from study.analysis.derived_cache import study_table
from study.analysis.tables import read_comparisons
from study.errors import ConfigError, Problem
from study.store.paths import RESULTS
from study.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from results.tables.layout import Table


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a study's replicates were scored on: test images by fold and seed, and the keys of the scorings.

    A key names size, threshold, versions of the evaluation, and the cases with their masks.
    """

    name: str
    images: dict[tuple[int, int], frozenset[str]]
    keys: dict[tuple[int, int], str]

    @property
    def every_image(self) -> frozenset[str]:
        """Return all test images."""
        return frozenset().union(*self.images.values())


def versus(storage: Path, names: Sequence[str], wanted: "Mapping[str, str]") -> "Table":
    """Lay two studies of a storage out beside each other and say what differs between them. Raises `ConfigError`."""
    store = Store(storage)
    own, other = (read_comparisons(store.study(name), wanted) for name in names)
    first, second = (scored(store, name) for name in names)
    notes = list(differences(first, second))
    comparable = first.every_image == second.every_image
    try:
        return side_by_side(own, other, wanted, comparable=comparable, notes=notes)
    except ValueError as error:
        raise ConfigError([Problem(path="", message=str(error))], " ".join(names)) from error


def scored(store: Store, name: str) -> Scored:
    """Read from one replicate of each fold and seed what the study was scored on."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = ["fold", "seed", "digest", "scoring"]
    file = study_table(store.study(name), RESULTS, columns)
    places = pq.read_table(file, columns=columns).group_by(["fold", "seed"], use_threads=False)
    images, keys = {}, {}
    for row in places.aggregate([("digest", "first"), ("scoring", "first")]).to_pylist():
        place = row["fold"], row["seed"]
        digest, keys[place] = row["digest_first"], row["scoring_first"]
        table = pq.read_table(store.images(digest, keys[place]), columns=["image", "split"])
        images[place] = frozenset(table.filter(pc.equal(table["split"], "test"))["image"].to_pylist())
    return Scored(name=name, images=images, keys=keys)


def differences(first: Scored, second: Scored) -> Iterator[str]:
    """Yield what a reader must know before holding one study against the other."""
    own, other = first.every_image, second.every_image
    if own != other:
        yield (
            f"Test images differ: {len(own & other)} shared, {len(own - other)} only in {first.name}, "
            f"{len(other - own)} only in {second.name}. Means stand beside each other without a difference."
        )
        return
    shared = first.images.keys() & second.images.keys()
    if any(first.images[place] != second.images[place] for place in shared):
        yield "The test images are the same, in other folds."
    elif any(first.keys[place] != second.keys[place] for place in shared):
        yield (
            "Scored differently: size, threshold, masks or the version of the evaluation differ. "
            "Differences may come from that."
        )
    counts = [(len({fold for fold, _ in one.images}), len({seed for _, seed in one.images})) for one in (first, second)]
    if counts[0] != counts[1]:
        told = (f"{one.name} {folds} x {seeds}" for one, (folds, seeds) in zip((first, second), counts, strict=True))
        yield f"Folds x seeds differ: {', '.join(told)}."
