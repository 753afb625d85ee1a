"""Selects networks: the best arm of a study, a given arm, or one stage by its digest."""

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
from study.store.references import refuse_imported
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Fields = Mapping[str, Any]
MIN_DIGEST_DIGITS = 4
"""Minimum number of leading digits that identify a stage."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Stages of one cell and their study; a stage without a study has the digest alone."""

    digests: tuple[str, ...]
    study: Path | None = None
    """The study's folder."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The study file of the last run."""
    cell: Fields = field(default_factory=dict)
    """Factors and labelled data."""
    scorings: Mapping[str, str] = field(default_factory=dict)
    """The key of the scores of this cell, by digest."""

    @property
    def level(self) -> str:
        """Return the column with the amount of labelled data."""
        return _level(self.spec)

    @property
    def description(self) -> str:
        """Return the cell as text."""
        return ", ".join(f"{name} {value}" for name, value in self.cell.items())

    def threshold(self, record: Fields) -> float:
        """Return the probability threshold at which the cell is scored."""
        stage, threshold = record["stage"], record["settings"].get("threshold")
        for name in (f"{stage}.threshold", "target.threshold"):
            threshold = self.cell.get(name, threshold)  # a stage may be scored at several thresholds
        return float(threshold or self.spec.get("evaluate", {}).get("threshold", 0.5))


def choose(
    store: Store, name: str, *, arm: Sequence[str] = (), fold: int | None = None, seed: int | None = None
) -> Choice:
    """Return the stages of a study, or the stage with a digest.

    Args:
        store: The storage.
        name: The name of a study, or the first digits of a digest.
        arm: Texts `factor=value`; among the cells with these values the one with the best headline metric is taken.
        fold: Only replicates of this fold.
        seed: Only replicates of this seed.

    Raises:
        ConfigError: Nothing matches.
    """
    if is_name(name):
        store.pull(name)
        refuse_imported(store, name)
    if is_name(name) and (store.study(name) / SPEC).is_file():
        folder = store.study(name)
        rows, cell, spec = _cell(folder, arm)
        selected = [
            row for row in rows if (fold is None or row["fold"] == fold) and (seed is None or row["seed"] == seed)
        ]
        if not selected:
            existing = ", ".join(f"fold {row['fold']} seed {row['seed']}" for row in rows)
            requested = [f"{key} {value}" for key, value in (("fold", fold), ("seed", seed)) if value is not None]
            raise _config_error(name, f"no replicate has {' and '.join(requested)}; allowed: {existing}; choose one")
        scorings = {row["digest"]: row["scoring"] for row in selected}
        return Choice(digests=tuple(scorings), study=folder, spec=spec, cell=cell, scorings=scorings)
    digest = _find_stage(store, name)
    if arm or fold is not None or seed is not None:
        message = "one stage has no arms, folds and seeds to choose from; allowed: these with a study's name"
        raise _config_error(name, f"{message}; leave --arm, --fold and --seed out")
    return _choice_of_stage(store, digest)


def _find_stage(store: Store, name: str) -> str:
    finished = sorted(digest for digest in store.finished() if store.is_finished(digest))
    matches = [digest for digest in finished if digest.startswith(name)] if len(name) >= MIN_DIGEST_DIGITS else []
    if len(matches) > 1:
        raise _config_error(
            name, f"begins {len(matches)} digests, such as {matches[0]} and {matches[1]}; allowed: one; add digits"
        )
    if not matches:
        message = unknown("study", name, store.studies(SPEC))
        raise _config_error(f"--storage {store.place}", f"{message}; or the first digits of a finished stage's digest")
    return matches[0]


def _choice_of_stage(store: Store, digest: str) -> Choice:
    altered: AlteredFileError | None = None
    for study in store.studies(RESULTS, SPEC, COMPARISONS):
        folder = store.study(study)
        try:
            rows = _replicates(folder, digest)
        except AlteredFileError as error:  # another study may contain the stage
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


def _cell(folder: Path, arm: Sequence[str]) -> tuple[list[Fields], Fields, Fields]:
    """Return the replicates, the factors and the study file of a cell."""
    spec = _spec(folder)
    cells = [row for row in read_comparisons(folder, schema.HEADLINE).to_pylist() if row.get("mean") is not None]
    if not cells:
        message = "no cell has a mean IoU on test images yet; allowed: a study that has run; or name a stage's digest"
        raise _config_error(folder.name, message)
    keys = (*_factors(cells), _level(spec))
    for text in arm:
        cells = _matching(cells, text, keys)
    best = max([row for row in cells if is_complete(row)] or cells, key=lambda row: row["mean"])
    rows = [row for row in _replicates(folder) if all(row[key] == best[key] for key in keys)]
    return rows, {key: best[key] for key in keys}, spec


def _matching(cells: Iterable[Fields], text: str, keys: Sequence[str]) -> list[Fields]:
    factor, _, value = text.partition("=")
    if factor not in keys:
        raise _config_error(f"--arm {text}", unknown("factor", factor, keys))
    candidates = list(cells)
    matches = [row for row in candidates if _is_same(row[factor], value)]
    if not matches:
        raise _config_error(
            f"--arm {text}", unknown(factor, value, dict.fromkeys(f"{row[factor]}" for row in candidates))
        )
    return matches


def _is_same(value: object, text: str) -> bool:
    if not isinstance(value, int | float):
        return str(value) == text
    try:  # tolerant, because users type fractions with fewer digits
        return abs(value - float(text)) < 1e-6
    except ValueError:
        return False


def _replicates(folder: Path, digest: str | None = None) -> list[Fields]:
    """Return factors, labelled data, fold, seed, digest and scoring of each scored replicate."""
    import pyarrow.parquet as pq

    file = study_table(folder, RESULTS, ("fold", "seed", "digest", "scoring"))
    names = pq.read_schema(file).names
    columns = [*schema.factor_columns(names), *schema.SIZES, "fold", "seed", "digest", "scoring"]
    filters = [(name, "=", value) for name, value in schema.HEADLINE.items()]
    filters += [("digest", "=", digest)] if digest is not None else []
    table: pa.Table = pq.read_table(file, columns=columns, filters=filters)
    return list(table.group_by(columns, use_threads=False).aggregate([]).to_pylist())


def _factors(rows: Sequence[Fields]) -> tuple[str, ...]:
    names = list(rows[0])
    return schema.factor_columns(names) if "study" in names else tuple(names[: names.index(schema.SIZES[0])])


def _level(spec: Fields) -> str:
    return "labelled_images" if spec.get("compare", {}).get("labelled_images") else "labelled_fraction"


def _spec(folder: Path) -> dict[str, Any]:
    from study.config.document import read_document

    check_spec(folder / SPEC)
    return read_document(folder / SPEC)


def _config_error(where: str, message: str) -> ConfigError:
    return ConfigError([Problem(path="", message=message)], where)
