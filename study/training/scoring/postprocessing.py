"""Scores of post-processed masks, whose rules may be chosen on the validation images."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.large import release
from datasets.source import IGNORE, Pixels
from models.counts import score_histograms
from models.network import Network
from models.score_bins import SCORE_BINS
from results.postprocessing.choose import (
    CaseComponents,
    choose_empty_rule,
    choose_largest_component,
    choose_smallest_area,
)
from results.postprocessing.components import MaskComponents
from results.postprocessing.rules import ClassRule, EmptyMaskRule
from results.schema import POSTPROCESSED
from study.config.evaluation import ClassPostprocess, EmptyRule
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
    """

    rows: Sequence[int]
    predicted: PredictedMasks
    exclusive: bool

    def lines(self, rows: Sequence[int], lines: slice) -> Pixels:
        """Return some lines of the masks of rows, in the format of `TrueMasks.lines`."""
        masks = np.stack([self.predicted.masks[:, self.rows.index(row), lines] for row in rows])
        release(self.predicted.masks)
        return ids_of(masks.swapaxes(0, 1)) if self.exclusive else masks.astype(np.uint8)


def chosen_rules(network: Network, evaluation: EvaluationSpec, validation: Sequence[int], scored: ScoreTables) -> Rules:
    """Return the rule of each class.

    Values that are `auto` are chosen on the validation images that annotate the class; without such images they are not
    applied.

    Args:
        network: The trained network.
        evaluation: Its evaluation.
        validation: Rows of the validation images.
        scored: The scores without post-processing, those of the validation images included.
    """
    settings = evaluation.postprocess
    rules = {name: ClassRule() for name in evaluation.task.outputs.names}
    rules |= {name: _fixed(of_class) for name, of_class in settings.items()}
    if not validation:
        return rules
    emptied = [name for name, of_class in settings.items() if of_class.empty == AUTO]
    for name in emptied:
        histograms = scored.histograms("validation", name)
        pixels = _pixel_histograms(network, evaluation, validation, name, labelled=sum(map(np.sum, histograms)))
        is_annotated = np.sum(histograms, axis=(0, 2)) > 0
        if is_annotated.any():
            positives, negatives = (part[is_annotated] for part in histograms)
            empty = choose_empty_rule(
                positives, negatives, threshold=evaluation.threshold,
                pixels=None if pixels is None else pixels[is_annotated],
            )  # fmt: skip
            rules[name] = replace(rules[name], empty=empty)
    chosen = {name: part for name, part in settings.items() if AUTO in (part.smallest_area, part.largest_component)}
    if chosen:
        components = _components_by_class(network, evaluation, validation, rules, tuple(chosen))
        rules |= {name: _with_components(rules[name], part, components[name]) for name, part in chosen.items()}
    return rules


def _fixed(settings: ClassPostprocess) -> ClassRule:
    """Return the rule of a class without what is chosen."""
    return ClassRule(
        empty=EmptyMaskRule(**settings.empty.model_dump()) if isinstance(settings.empty, EmptyRule) else None,
        smallest_area=settings.smallest_area if isinstance(settings.smallest_area, int) else 0,
        largest_component=settings.largest_component is True,
    )


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
            of_case = _components(evaluation, case, all_names.index(name))
            components[name] += [] if of_case is None else [of_case]
    return components


def add_postprocessed(
    network: Network, evaluation: EvaluationSpec, rules: Rules, rows: Sequence[int], split: str, scored: ScoreTables
) -> None:
    """Add the scores of post-processed masks of a split whose rows are in the tables without post-processing."""
    for case in _cases(network, evaluation, rows, rules):
        case.predicted.postprocess()
        for row in case.rows:
            batches = mask_predictions(evaluation, case, [row])
            scored.add_masks(row, *collect(evaluation, [row], batches, PixelSums.of_masks), split, POSTPROCESSED)
    scored.finish_split()


def _cases(network: Network, evaluation: EvaluationSpec, rows: Sequence[int], rules: Rules) -> Iterator[_Case]:
    """Yield the predictions of each image or volume; the slices of a volume follow each other in `rows`."""
    outputs = evaluation.task.outputs
    by_class = [rules[name] for name in outputs.names]
    by_row = _by_row(network, evaluation, rows)
    for case_rows in _case_rows(evaluation, rows):
        shape = (len(case_rows), *evaluation.shape_of(case_rows[0]))
        predicted = PredictedMasks(outputs, evaluation.threshold, shape, by_class)
        for position in range(len(case_rows)):
            for batch in next(by_row):
                predicted.add(batch.probabilities[0], position=position, lines=batch.lines)
        yield _Case(rows=case_rows, predicted=predicted, exclusive=outputs.exclusive)


def _case_rows(evaluation: EvaluationSpec, rows: Sequence[int]) -> Iterator[list[int]]:
    """Yield the row of each image, or those of the slices of each volume."""
    volume = evaluation.index.volume
    return (list(group) for _, group in groupby(rows, lambda row: volume(row) or f"image {row}"))


def _by_row(network: Network, evaluation: EvaluationSpec, rows: Sequence[int]) -> Iterator[Iterator[EvaluatedBatch]]:
    """Yield the predictions of each row: one batch with its image, or the bands of a large image."""
    for batch_rows in row_batches(rows, evaluation.size):
        batches = predictions(network, evaluation, batch_rows)
        if len(batch_rows) == 1:
            yield batches
            continue
        (batch,) = batches
        yield from (iter([batch.image(position)]) for position in range(len(batch_rows)))


def _pixel_histograms(
    network: Network, evaluation: EvaluationSpec, rows: Sequence[int], name: str, *, labelled: int
) -> NDArray[np.float64] | None:
    """Return the score histograms (cases, bins) of all pixels of a class, of which `labelled` have a label.

    None if all have one. An empty-mask rule is applied to all pixels.
    """
    if labelled == sum(math.prod(evaluation.shape_of(row)) for row in rows):
        return None
    channel = evaluation.task.outputs.names.index(name) + evaluation.task.outputs.exclusive
    by_row, histograms = _by_row(network, evaluation, rows), []
    for case_rows in _case_rows(evaluation, rows):
        total = np.zeros(SCORE_BINS)
        for _ in case_rows:
            for batch in next(by_row):
                scores = batch.probabilities[:, channel : channel + 1]
                bins = score_histograms(scores, torch.zeros_like(scores, dtype=torch.bool))
                total += bins.negatives[0, 0].cpu().numpy()
        histograms.append(total)
    return np.stack(histograms)


def _components(evaluation: EvaluationSpec, case: _Case, number: int) -> CaseComponents | None:
    """Return the components of the mask of a class with their labelled pixels inside and outside of the truth.

    None if no pixel of the case is annotated.
    """
    components = MaskComponents(case.predicted.of_class(number))
    inside, outside = np.zeros(components.count + 1, np.int64), np.zeros(components.count + 1, np.int64)
    truth, is_annotated = 0, False
    is_volume = len(case.rows) > 1
    for part, numbers in components.bands():
        # The bands of a volume are slices, those of an image rows.
        rows, lines = (case.rows[part], slice(None)) if is_volume else (case.rows, part)
        true = evaluation.truth.lines(rows, lines)
        true_mask = true == number + 1 if case.exclusive else true[:, number] == 1
        labelled = (true if case.exclusive else true[:, number]) != IGNORE
        is_annotated |= bool(labelled.any())
        flat = numbers.reshape(true_mask.shape)
        truth += int(true_mask.sum())
        inside += np.bincount(flat[true_mask], minlength=len(inside))
        outside += np.bincount(flat[labelled & ~true_mask], minlength=len(outside))
    if not is_annotated:
        return None
    return CaseComponents(sizes=components.sizes[1:], tp=inside[1:], fp=outside[1:], truth=truth)
