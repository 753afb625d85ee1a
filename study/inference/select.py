"""Which networks a user means: the best arm of a study, a named arm, or one stage by its digest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import schema
from results.tables.layout import is_complete
from study.analysis.derived_cache import study_table
from study.analysis.tables import read_comparisons
from study.errors import ConfigError, Problem, unknown
from study.store.atomic import AlteredFileError, is_name
from study.store.documents import check_spec
from study.store.paths import COMPARISONS, RESULTS, SPEC
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Row = Mapping[str, Any]
SHORTEST = 4
"""Digits that a digest is given by at least."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Stages of one cell, and what its study knows of them; a stage that no study tells of stands alone."""

    digests: tuple[str, ...]
    study: Path | None = None
    """The study's folder."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The study's file as it was last run."""
    cell: Row = field(default_factory=dict)
    """Factors and labelled data."""
    scorings: Mapping[str, str] = field(default_factory=dict)
    """Which of a stage's scores are this cell's, by digest."""

    @property
    def level(self) -> str:
        """Return by which column cells of equal arms differ."""
        return _level(self.spec)

    @property
    def told(self) -> str:
        """Return the cell in words."""
        return ", ".join(f"{name} {value}" for name, value in self.cell.items())

    def threshold(self, record: Row) -> float:
        """Return from which probability on a pixel counts when the cell is scored."""
        stage, own = record["stage"], record["settings"].get("threshold")
        for name in (f"{stage}.threshold", "target.threshold"):
            own = self.cell.get(name, own)  # equal trainings are one stage, scored at several thresholds
        return float(own or self.spec.get("evaluate", {}).get("threshold", 0.5))


def choose(
    store: Store, name: str, *, arm: Sequence[str] = (), fold: int | None = None, seed: int | None = None
) -> Choice:
    """Return the stages that a name or a digest stands for. Raises `ConfigError`.

    `arm` are texts `factor=value`; of several cells that have these values it is the one with the best headline.
    """
    if is_name(name):
        store.pull(name)
    if is_name(name) and (store.study(name) / SPEC).is_file():
        folder = store.study(name)
        rows, cell, spec = _cell(folder, arm)
        kept = [row for row in rows if (fold is None or row["fold"] == fold) and (seed is None or row["seed"] == seed)]
        if not kept:
            there = ", ".join(f"fold {row['fold']} seed {row['seed']}" for row in rows)
            asked = [f"{what} {value}" for what, value in (("fold", fold), ("seed", seed)) if value is not None]
            raise _refused(name, f"no replicate has {' and '.join(asked)}; allowed: {there}; choose one")
        scorings = {row["digest"]: row["scoring"] for row in kept}
        return Choice(digests=tuple(scorings), study=folder, spec=spec, cell=cell, scorings=scorings)
    digest = _stage(store, name)
    if arm or fold is not None or seed is not None:
        message = "one stage has no arms, folds and seeds to choose from; allowed: these with a study's name"
        raise _refused(name, f"{message}; leave --arm, --fold and --seed out")
    return _told_by_a_study(store, digest)


def _stage(store: Store, name: str) -> str:
    finished = sorted(digest for digest in store.finished() if store.is_finished(digest))
    found = [digest for digest in finished if digest.startswith(name)] if len(name) >= SHORTEST else []
    if len(found) > 1:
        raise _refused(
            name, f"begins {len(found)} digests, such as {found[0]} and {found[1]}; allowed: one; add digits"
        )
    if not found:
        message = unknown("study", name, store.studies(SPEC))
        raise _refused(f"--storage {store.place}", f"{message}; or the first digits of a finished stage's digest")
    return found[0]


def _told_by_a_study(store: Store, digest: str) -> Choice:
    altered: AlteredFileError | None = None
    for study in store.studies(RESULTS, SPEC, COMPARISONS):
        folder = store.study(study)
        try:
            rows = _replicates(folder, digest)
        except AlteredFileError as error:  # another study may know the stage
            altered = altered or error
            continue
        if rows and (folder / SPEC).is_file():
            spec = _spec(folder)
            cell = {name: rows[0][name] for name in (*_factors(rows), _level(spec))}
            scorings = {digest: rows[0]["scoring"]}
            return Choice(digests=(digest,), study=folder, spec=spec, cell=cell, scorings=scorings)
    if altered is not None:
        raise altered
    return Choice(digests=(digest,))


def _cell(folder: Path, arm: Sequence[str]) -> tuple[list[Row], Row, Row]:
    """Return the replicates, the factors and the study file of a cell."""
    spec = _spec(folder)
    cells = [row for row in read_comparisons(folder, schema.HEADLINE).to_pylist() if row.get("mean") is not None]
    if not cells:
        message = "no cell has a mean IoU on test images yet; allowed: a study that has run; or name a stage's digest"
        raise _refused(folder.name, message)
    keys = (*_factors(cells), _level(spec))
    for text in arm:
        cells = _matching(cells, text, keys)
    best = max([row for row in cells if is_complete(row)] or cells, key=lambda row: row["mean"])
    rows = [row for row in _replicates(folder) if all(row[key] == best[key] for key in keys)]
    return rows, {key: best[key] for key in keys}, spec


def _matching(cells: Iterable[Row], text: str, keys: Sequence[str]) -> list[Row]:
    factor, _, value = text.partition("=")
    if factor not in keys:
        raise _refused(f"--arm {text}", unknown("factor", factor, keys))
    left = list(cells)
    found = [row for row in left if _same(row[factor], value)]
    if not found:
        raise _refused(f"--arm {text}", unknown(factor, value, dict.fromkeys(f"{row[factor]}" for row in left)))
    return found


def _same(value: object, other: object) -> bool:
    if not isinstance(value, int | float):
        return str(value) == str(other)
    try:  # a share is typed with fewer digits than it has
        return abs(value - float(str(other))) < 1e-6
    except ValueError:
        return False


def _replicates(folder: Path, digest: str | None = None) -> list[Row]:
    """Return factors, labelled data, fold, seed, digest and scoring of the replicates that are scored, each once."""
    import pyarrow.parquet as pq

    file = study_table(folder, RESULTS, ("fold", "seed", "digest", "scoring"))
    names = pq.read_schema(file).names
    columns = [*schema.factor_columns(names), *schema.SIZES, "fold", "seed", "digest", "scoring"]
    filters = [(name, "=", value) for name, value in schema.HEADLINE.items()]
    filters += [("digest", "=", digest)] if digest is not None else []
    table: pa.Table = pq.read_table(file, columns=columns, filters=filters)
    return list(table.group_by(columns, use_threads=False).aggregate([]).to_pylist())


def _factors(rows: Sequence[Row]) -> tuple[str, ...]:
    names = list(rows[0])
    return schema.factor_columns(names) if "study" in names else tuple(names[: names.index(schema.SIZES[0])])


def _level(spec: Row) -> str:
    return "labelled_images" if spec.get("compare", {}).get("labelled_images") else "labelled_fraction"


def _spec(folder: Path) -> dict[str, Any]:
    from study.config.document import read_document

    check_spec(folder / SPEC)
    return read_document(folder / SPEC)


def _refused(where: str, message: str) -> ConfigError:
    return ConfigError([Problem(path="", message=message)], where)
