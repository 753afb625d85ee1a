"""Check the `published` section of a study file against the comparison."""

from collections.abc import Iterator, Sequence

from models.architectures import ARCHITECTURES
from models.catalog import registry
from models.settings import LocalisationSettings
from results.schema import METRICS, PER_CASE_ONLY, STAGE_METRICS, UNIT_INTERVAL
from study.config.schema import StudySpec
from study.config.stages import Stage
from study.errors import Problem, unknown
from study.planning.arms import FIXED_FACTORS, OWN, Arm, matches


def published_problems(spec: StudySpec) -> Iterator[Problem]:
    """Yield published values of unknown metrics or factors, or of values that no study can have."""
    names = [*FIXED_FACTORS, *spec.compare.factors, "labelled_fraction", "labelled_images"]
    allowed_values = {"architecture": ARCHITECTURES, "backbone": (OWN, *registry.backbones()), "pathway": spec.pathways}
    for section, published in enumerate(spec.published):
        localisations = [name for name, stage in spec.stages.items() if isinstance(stage, LocalisationSettings)]
        if published.stage is not None and published.stage not in localisations:
            message = unknown("localisation stage", published.stage, localisations)
            yield Problem(path=f"published[{section}].stage", message=message)
        metrics = METRICS if published.stage is None else _stage_metrics(spec.stages.get(published.stage))
        if published.metric not in metrics:
            yield Problem(path=f"published[{section}].metric", message=unknown("metric", published.metric, metrics))
        if published.metric in PER_CASE_ONLY and published.aggregation != "case":
            message = (
                f"is {published.aggregation} of {published.metric}; allowed: case, per image; set aggregation: case"
            )
            yield Problem(path=f"published[{section}].aggregation", message=message)
        if published.metric in PER_CASE_ONLY and published.class_ == "weighted":
            message = f"is weighted of {published.metric}; allowed: macro, or a class; choose one of these"
            yield Problem(path=f"published[{section}].class", message=message)
        for position, row in enumerate(published.values):
            if row.value < 0:
                message = (
                    f"is {row.value:g}; allowed: 0 or more, as {published.metric} has no negative values; correct it"
                )
                yield Problem(path=f"published[{section}].values[{position}].value", message=message)
            elif published.metric in UNIT_INTERVAL and not 0 <= row.value <= 1:
                message = f"is {row.value:g}; allowed: 0 to 1, the scale of {published.metric}; divide percent by 100"
                yield Problem(path=f"published[{section}].values[{position}].value", message=message)
            for name, value in row.match.items():
                path = f"published[{section}].values[{position}].match.{name}"
                if name not in names:
                    yield Problem(path=path, message=unknown("factor", name, names))
                elif name in allowed_values and value not in allowed_values[name]:
                    yield Problem(path=path, message=unknown(name, value, allowed_values[name]))


def _stage_metrics(stage: Stage | None) -> Sequence[str]:
    """Return the scores of a localisation stage; only boxes have an intersection over union."""
    of_centre = isinstance(stage, LocalisationSettings) and stage.target == "centre"
    return [name for name in STAGE_METRICS if not (of_centre and name == "mean_iou")]


def published_warnings(spec: StudySpec, arms: Sequence[Arm]) -> Iterator[str]:
    """Yield the number of published values that match no cell of the study."""
    compare = spec.compare
    for section, published in enumerate(spec.published):
        cells = [dict(row.match) for row in published.values]
        amounts = [cell.pop(compare.level, None) for cell in cells]
        missing = sum(
            (amount is not None and amount not in compare.labelled) or not any(matches(arm.row, cell) for arm in arms)
            for amount, cell in zip(amounts, cells, strict=True)
            if cell.keys() <= {*FIXED_FACTORS, *compare.factors}
        )
        if missing:
            yield f"published[{section}]: {missing} of {len(cells)} values match no cell of this study"
