"""Scores of post-processed masks, whose rules may be chosen on the validation images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from datasets.large import release
from datasets.source import IGNORE, Pixels
from models.network import Network
from results.metrics.cases import Cases
from results.metrics.count_arrays import pixel_counts, rows_of_split
from results.metrics.lesions import Components
from results.postprocessing.choose import (
    CaseComponents,
    choose_empty_rule,
    choose_largest_component,
    choose_smallest_area,
)
from results.postprocessing.rules import ClassRule, EmptyMaskRule, component_sizes
from results.schema import POSTPROCESSED
from study.config.evaluation import ClassPostprocess, EmptyRule, Postprocess
from study.training.prediction.masks import PredictedMasks, ids_of
from study.training.scoring.batches import (
    EvaluatedBatch,
    EvaluationSpec,
    mask_predictions,
    predictions,
    row_batches,
)
from study.training.scoring.pixel_sums import PixelSums
from study.training.scoring.score_tables import ScoreTables, collect

Rules = Mapping[str, ClassRule]
"""By class."""
AUTO: Final = "auto"


@dataclass(kw_only=True, eq=False)
class _Case:
    """An image, or a volume with all of its slices.

    Attributes:
        rows: Its rows of the index.
        predicted: Its masks.
        exclusive: Whether classes exclude each other.
        sums: Sums over the pixels of each row, with the probabilities of the network.
    """

    rows: Sequence[int]
    predicted: PredictedMasks
    exclusive: bool
    sums: list[PixelSums] = field(default_factory=list)

    def lines(self, rows: Sequence[int], lines: slice) -> Pixels:
        """Return some lines of the masks of rows, in the format of `TrueMasks.lines`."""
        masks = np.stack([self.predicted.masks[:, self.rows.index(row), lines] for row in rows])
        release(self.predicted.masks)
        return ids_of(masks.swapaxes(0, 1)) if self.exclusive else masks.astype(np.uint8)


def chosen_rules(
    network: Network, evaluation: EvaluationSpec, settings: Postprocess, validation: Sequence[int], scored: ScoreTables
) -> Rules:
    """Return the rule of each class; what is `auto` is chosen on the validation images, and left out without any.

    Args:
        network: The trained network.
        evaluation: Its evaluation.
        settings: The settings of post-processing.
        validation: Rows of the validation images.
        scored: The scores without post-processing, those of the validation images included.
    """
    by_class = {name: settings.of(name) for name in evaluation.task.outputs.names}
    if not validation:
        return {name: _fixed(own) for name, own in by_class.items()}
    rules = {name: _with_empty_rule(own, name, evaluation, scored) for name, own in by_class.items()}
    chosen = {name: own for name, own in by_class.items() if AUTO in (own.smallest_area, own.largest_component)}
    if chosen:
        components = _components_by_class(network, evaluation, validation, rules, tuple(chosen))
        rules |= {name: _with_components(rules[name], own, components[name]) for name, own in chosen.items()}
    return rules


def _fixed(settings: ClassPostprocess) -> ClassRule:
    """Return the rule of a class without what is chosen."""
    return ClassRule(
        empty=EmptyMaskRule(**settings.empty.model_dump()) if isinstance(settings.empty, EmptyRule) else None,
        smallest_area=settings.smallest_area if isinstance(settings.smallest_area, int) else 0,
        largest_component=settings.largest_component is True,
    )


def _with_empty_rule(
    settings: ClassPostprocess, name: str, evaluation: EvaluationSpec, scored: ScoreTables
) -> ClassRule:
    """Return the rule of a class with a chosen empty-mask rule."""
    rule = _fixed(settings)
    if settings.empty != AUTO:
        return rule
    return replace(rule, empty=choose_empty_rule(*_histograms(scored, name), threshold=evaluation.threshold))


def _with_components(rule: ClassRule, settings: ClassPostprocess, cases: Sequence[CaseComponents]) -> ClassRule:
    """Return the rule of a class with chosen rules of components."""
    if settings.smallest_area == AUTO:
        rule = replace(rule, smallest_area=choose_smallest_area(cases))
    if settings.largest_component == AUTO:
        rule = replace(rule, largest_component=choose_largest_component(cases, rule.smallest_area))
    return rule


def _components_by_class(
    network: Network, evaluation: EvaluationSpec, validation: Sequence[int], rules: Rules, names: Sequence[str]
) -> Mapping[str, Sequence[CaseComponents]]:
    """Return the components of the masks of some classes, of all validation cases, after the empty-mask rules."""
    all_names = evaluation.task.outputs.names
    emptied = [ClassRule(empty=rules[name].empty) for name in all_names]
    components: dict[str, list[CaseComponents]] = {name: [] for name in names}
    for case in _cases(network, evaluation, validation, rules):
        case.predicted.postprocess(emptied)
        for name in names:
            components[name].append(_components(evaluation, case, all_names.index(name)))
    return components


def add_postprocessed(
    network: Network, evaluation: EvaluationSpec, rules: Rules, rows: Sequence[int], split: str, scored: ScoreTables
) -> None:
    """Add the scores of post-processed masks of a split to the tables.

    What depends on probabilities alone, such as the score histograms, is the same as without post-processing. The
    calibration of the foreground is left out.
    """
    for case in _cases(network, evaluation, rows, rules):
        case.predicted.postprocess()
        for row, sums in zip(case.rows, case.sums, strict=True):
            of_masks, masks = collect(evaluation, [row], mask_predictions(evaluation, case, [row]))
            scored.add([row], sums.with_masks_of(of_masks), masks, split + POSTPROCESSED)
    scored.finish_split()


def _cases(network: Network, evaluation: EvaluationSpec, rows: Sequence[int], rules: Rules) -> Iterator[_Case]:
    """Yield the predictions of each image or volume; the slices of a volume follow each other in `rows`."""
    outputs, volume = evaluation.task.outputs, evaluation.index.volume
    by_class = [rules[name] for name in outputs.names]
    by_row = _by_row(network, evaluation, rows)
    for _, group in groupby(rows, lambda row: volume(row) or f"image {row}"):
        case_rows = list(group)
        shape = (len(case_rows), *evaluation.shape_of(case_rows[0]))
        predicted = PredictedMasks(outputs, evaluation.threshold, shape, by_class)
        case = _Case(rows=case_rows, predicted=predicted, exclusive=outputs.exclusive)
        for position in range(len(case_rows)):
            total: PixelSums | None = None
            for batch in next(by_row):
                predicted.add(batch.probabilities[0], position=position, lines=batch.lines)
                sums = PixelSums.of(batch)
                total = sums if total is None else total + sums
            assert total is not None, "every image has a band"
            case.sums.append(total)
        yield case


def _by_row(network: Network, evaluation: EvaluationSpec, rows: Sequence[int]) -> Iterator[Iterator[EvaluatedBatch]]:
    """Yield the predictions of each row: one batch with its image, or the bands of a large image."""
    for batch_rows in row_batches(rows, evaluation.size):
        batches = predictions(network, evaluation, batch_rows)
        if len(batch_rows) == 1:
            yield batches
            continue
        (batch,) = batches
        yield from (iter([batch.image(position)]) for position in range(len(batch_rows)))


def _histograms(scored: ScoreTables, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the score histograms (cases, bins) of the positive and the negative validation pixels of a class."""
    scores, images = (rows_of_split(table, "validation") for table in scored.tables())
    cases = Cases.of(images.sort_by("image"))
    of_class = cases.counts(pixel_counts(scores, [name]))
    return of_class.positives[:, 0], of_class.negatives[:, 0]


def _components(evaluation: EvaluationSpec, case: _Case, number: int) -> CaseComponents:
    """Return the components of the mask of a class with their labelled pixels inside and outside of the truth."""
    components = Components.of(case.predicted.of_class(number))
    inside, outside = np.zeros(components.count + 1, np.int64), np.zeros(components.count + 1, np.int64)
    truth = 0
    for lines, labels in components.bands():
        # The first axis of the mask of a volume are its slices, which are one band.
        is_volume = len(case.rows) > 1
        true = evaluation.truth.lines(case.rows, slice(None) if is_volume else lines)
        if case.exclusive:
            true_mask, labelled = true == number + 1, true != IGNORE
        else:
            true_mask, labelled = true[:, number] > 0, np.ones_like(true[:, number], np.bool_)
        numbers = labels.reshape(true_mask.shape)
        truth += int(true_mask.sum())
        inside += np.bincount(numbers[true_mask], minlength=len(inside))
        outside += np.bincount(numbers[labelled & ~true_mask], minlength=len(outside))
    return CaseComponents(sizes=component_sizes(components)[1:], tp=inside[1:], fp=outside[1:], truth=truth)
