"""Stages and replicates of a study for its report: from the plan if the data can be read, else from the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import yaml

from results.schema import Level, factor_columns
from study.analysis.derived_cache import study_table
from study.planning.graph import Plan, image_epochs
from study.store.paths import RECORD, RESULTS
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """A unique stage. `image_epochs` is None without a plan, `seconds` is None until it is finished."""

    digest: str
    name: str
    task: str
    data: str
    network: str
    parent: str | None
    link: str
    image_epochs: int | None
    seconds: float | None
    teachers: tuple[str, ...] = ()
    """The stages that predict labels of its images without masks, the parent first."""

    @property
    def carries(self) -> bool:
        """Return whether the stage starts from weights of its parent."""
        return self.parent is not None and self.link.partition(";")[0] != "none"

    @property
    def start(self) -> str:
        """Return what the stage has of its parent, as text; empty without a parent."""
        return "; ".join([*([self.link] if self.carries else []), *(["pseudo-labels"] if self.teachers else [])])

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the stages whose weights the stage reads."""
        return tuple(dict.fromkeys([*([self.parent] if self.parent else []), *self.teachers]))


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A replicate and the chain of its stages.

    Attributes:
        factors: Factors of the arm.
        labelled: Fraction (float) or number (int) of labelled images.
        fold: Fold of the target's data.
        seed: Seed of the replicate.
        stages: Digests, the target stage last.
        scoring: Key of the score files, None without a plan.
    """

    factors: Mapping[str, str]
    labelled: float | int
    fold: int
    seed: int
    stages: tuple[str, ...]
    scoring: str | None


@dataclass(kw_only=True, eq=False)
class Facts:
    """Stages and replicates of a study; `no_plan_reason` explains why there is no plan."""

    store: Store
    name: str
    stages: Mapping[str, StageFacts]
    chains: Sequence[Chain]
    plan: Plan | None = None
    no_plan_reason: str = ""
    _records: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def finished(self) -> Sequence[StageFacts]:
        """Return the finished stages."""
        return [stage for stage in self.stages.values() if stage.seconds is not None]

    @cached_property
    def groups(self) -> Mapping[str, int]:
        """Return the group of each stage: equal for the same step of a pathway after the same steps."""
        numbers: dict[tuple[int | None, str, str], int] = {}
        groups: dict[str, int] = {}
        for digest, stage in self.stages.items():
            parent_group = groups.get(stage.parent) if stage.parent else None
            groups[digest] = numbers.setdefault((parent_group, stage.name, stage.link), len(numbers))
        return groups

    def needed(self, chain: Chain) -> list[StageFacts]:
        """Return the stages of a replicate and all that these need, as far as they are known."""
        needed: dict[str, StageFacts] = {}
        waiting = list(chain.stages)
        while waiting:
            digest = waiting.pop()
            if digest in self.stages and digest not in needed:
                needed[digest] = self.stages[digest]
                waiting += needed[digest].needs
        return list(needed.values())

    def record(self, digest: str) -> dict[str, Any]:
        """Return the record of a finished stage. Raises `DamagedStageError`."""
        if digest not in self._records:
            self._records[digest] = self.store.record(digest)
        return self._records[digest]

    def runtime(self, digest: str) -> dict[str, Any]:
        """Return `cpus`, `host`, `python` and `libraries`, the last keys in the record of a finished stage."""
        text = self.store.file(digest, RECORD).read_text(encoding="utf-8")
        runtime = yaml.load(text[text.find("\ncpus:") :], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return runtime if isinstance(runtime, dict) else {}


def facts_of(plan: Plan, store: Store) -> Facts:
    """Return the stages and replicates of a plan; their seconds are read from the store."""
    finished = store.finished()
    stages = {}
    for digest, node in plan.nodes.items():
        step = node.step
        stages[digest] = StageFacts(
            digest=digest,
            name=step.stage,
            task=step.settings.task,
            data=node.selection.data,
            network=" / ".join(filter(None, (step.architecture, step.backbone))),
            parent=node.parent,
            link=_link_text(step.link.model_dump()) if node.parent else "",
            image_epochs=image_epochs(plan, node),
            seconds=_seconds(store, digest) if digest in finished else None,
            teachers=node.teachers,
        )
    chains = [
        Chain(
            factors=plan.arms[replicate.arm].factors,
            labelled=replicate.labelled,
            fold=replicate.fold,
            seed=replicate.seed,
            stages=replicate.chain,
            scoring=replicate.scoring.key,
        )
        for replicate in plan.replicates
    ]
    return Facts(store=store, name=plan.spec.name, stages=stages, chains=chains, plan=plan)


def facts_without_plan(store: Store, name: str, results: "pa.Table | None", no_plan_reason: str, level: Level) -> Facts:
    """Return the finished stages and the replicates with results, without a plan."""
    facts = Facts(store=store, name=name, stages={}, chains=[], no_plan_reason=no_plan_reason)
    stages: dict[str, StageFacts] = {}
    finished = store.finished()
    for digest in store.planned(name):
        record = facts.record(digest) if digest in finished else {}
        if record:
            stages[digest] = _stage_of_record(record, _seconds(store, digest))
    stages = _parents_first(stages)
    facts.stages = stages
    facts.chains = [] if results is None else list(_chains(results, stages, level))
    return facts


def _stage_of_record(record: Mapping[str, Any], seconds: float | None) -> StageFacts:
    settings = record["settings"]
    return StageFacts(
        digest=record["digest"],
        name=record["stage"],
        task=settings["task"],
        data=settings["data"],
        network=" / ".join(filter(None, (record["architecture"], record["backbone"]))),
        parent=record["parent"],
        link=_link_text(record["link"]) if record["parent"] else "",
        image_epochs=None,
        seconds=seconds if seconds is not None else record["seconds"],
        teachers=tuple(record.get("pseudo_labels", {}).get("teachers", ())),
    )


def _parents_first(stages: Mapping[str, StageFacts]) -> dict[str, StageFacts]:
    ordered: dict[str, StageFacts] = {}

    def add(digest: str) -> None:
        stage = stages.get(digest)
        if stage is not None and digest not in ordered:
            add(stage.parent or "")
            ordered[digest] = stage

    for digest in stages:
        add(digest)
    return ordered


def _chains(results: "pa.Table", stages: Mapping[str, StageFacts], level: Level) -> "Sequence[Chain]":
    factors = factor_columns(results.column_names)
    columns = [*factors, level, "fold", "seed", "digest"]
    chains = []
    for row in results.select(columns).group_by(columns).aggregate([]).to_pylist():
        chain = [row["digest"]]
        while (stage := stages.get(chain[0])) is not None and stage.parent:
            chain.insert(0, stage.parent)
        chains.append(
            Chain(
                factors={name: row[name] for name in factors},
                labelled=row[level],
                fold=row["fold"],
                seed=row["seed"],
                stages=tuple(chain),
                scoring=None,
            )
        )
    return chains


def _seconds(store: Store, digest: str) -> float:
    return float(store.manifest(digest)["seconds"])


def _link_text(link: Mapping[str, Any]) -> str:
    """Return the weights that a link carries and freezes, as text."""
    frozen = ", ".join(link["freeze"])
    until = f" for {link['unfreeze_after']} epochs" if link.get("unfreeze_after") else ""
    return str(link["carry"]) + (f"; {frozen} frozen{until}" if frozen else "")


def read_results(store: Store, name: str) -> "pa.Table | None":
    """Return the results table, None if there is none yet."""
    import pyarrow.parquet as pq

    folder = store.study(name)
    return pq.read_table(study_table(folder, RESULTS)) if (folder / RESULTS).is_file() else None
