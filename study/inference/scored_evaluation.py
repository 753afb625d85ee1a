"""How the networks of a cell were scored: test-time augmentation and post-processing, which prediction repeats."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from datasets.settings import NATIVE, EvaluatedSize, shape_of
from results.postprocessing.rules import ClassRule
from results.schema import EVALUATION
from study.config.evaluation import TtaName
from study.inference.select import Choice
from study.store.store import Store

Rules = Mapping[str, ClassRule]
"""By class."""


@dataclass(frozen=True, kw_only=True)
class ScoredEvaluation:
    """Settings with which networks were scored.

    Attributes:
        size: The evaluated size, to which areas refer.
        tta: Test-time augmentation by digest of the network.
        rules: Post-processing by digest of the network; without those that have none.
    """

    size: EvaluatedSize = NATIVE
    tta: Mapping[str, tuple[TtaName, ...]] = field(default_factory=dict)
    rules: Mapping[str, Rules] = field(default_factory=dict)

    @classmethod
    def read(cls, store: Store, choice: Choice) -> "ScoredEvaluation":
        """Read the settings from the scores of a cell; networks without scores have neither."""
        records = {digest: evaluation_record(store, digest, scoring) for digest, scoring in choice.scorings.items()}
        first: Mapping[str, Any] = next(iter(records.values()), {})
        size = first.get("size", NATIVE)
        rules = {digest: rules_of(record) for digest, record in records.items()}
        return cls(
            size=tuple(size) if isinstance(size, list) else size,
            tta={digest: tuple(record.get("tta", ())) for digest, record in records.items()},
            rules={digest: by_class for digest, by_class in rules.items() if by_class},
        )

    def tta_of(self, digest: str) -> tuple[TtaName, ...]:
        """Return the test-time augmentation of a network."""
        return self.tta.get(digest, ())

    @property
    def all_tta(self) -> list[TtaName]:
        """Return all transforms of the test-time augmentation of the networks."""
        return list(dict.fromkeys(name for names in self.tta.values() for name in names))

    def combined(self, digests: Sequence[str], names: Sequence[str], threshold: float | None) -> tuple[ClassRule, ...]:
        """Return the combined rule of some networks for each class; empty without post-processing.

        Args:
            digests: The networks.
            names: The classes.
            threshold: A threshold that replaces the chosen ones.
        """
        rules = [self.rules[digest] for digest in digests if digest in self.rules]
        if not rules:
            return ()
        by_class = [ClassRule.combined([part[name] for part in rules]) for name in names]
        return tuple(rule if threshold is None else _at_threshold(rule, threshold) for rule in by_class)

    def area_factor(self, image: tuple[int, int], output: tuple[int, int]) -> float:
        """Return how many pixels of an output there are for each pixel at the evaluated size.

        Args:
            image: Height and width of the image.
            output: Height and width of its masks.
        """
        height, width = image if self.size == NATIVE else shape_of(self.size)
        return output[0] * output[1] / (height * width)


def rules_of(record: Mapping[str, Any]) -> Rules:
    """Return the post-processing of a record of `evaluation_record`; empty for none."""
    return {name: ClassRule.from_record(rule) for name, rule in record.get("postprocess", {}).items()}


def evaluation_record(store: Store, digest: str, scoring: str) -> Mapping[str, Any]:
    """Return the record of `results.schema.EVALUATION` of scores; empty for those of earlier versions."""
    import pyarrow.parquet as pq

    metadata = pq.read_schema(store.scores(digest, scoring)).metadata or {}
    record: Mapping[str, Any] = json.loads(metadata.get(EVALUATION, b"{}"))
    return record


def _at_threshold(rule: ClassRule, threshold: float) -> ClassRule:
    if rule.empty is None:
        return rule
    return replace(rule, empty=replace(rule.empty, bottom=threshold, top=max(rule.empty.top, threshold)))
