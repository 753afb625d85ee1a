"""Sections of the report on the stages of the pathways and their cost."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from results.figures import Group
from results.report.page import Block, Grid, GridCell, Text, number_columns, text_columns
from study.monitoring.units import count, duration
from study.report.facts import Facts, StageFacts


def pathway_groups(facts: Facts) -> list[Group]:
    """Return the nodes of the pathway graph."""
    pathways, uses = _groups_by_pathway(facts), _runs_by_group(facts)
    chained = {digest for chain in facts.chains for digest in chain.stages}
    groups = []
    for group, stages in _stages_by_group(facts).items():
        first, runs = stages[0], uses[group]
        through = [name for name, (path, _) in pathways.items() if group in path]
        in_chains = sum(stage.digest in chained for stage in stages)  # not the further runs of teachers
        shared = f", used by {runs:,} runs" if runs > in_chains else ""
        noun = "stage" if len(stages) == 1 else "stages"
        groups.append(Group(
            title=first.name,
            lines=[f"{first.task} on {first.data}", f"{len(stages):,} {noun}{shared}", _cost_text(stages)],
            parent=facts.groups.get(first.parent or ""),
            link=first.start,
            ends=[name for name, (_, ends) in pathways.items() if group in ends],
            shared=len(through),
        ))  # fmt: skip
    return groups


def _stages_by_group(facts: Facts) -> dict[int, list[StageFacts]]:
    stages_by_group: dict[int, list[StageFacts]] = {}
    for digest, stage in facts.stages.items():
        stages_by_group.setdefault(facts.groups[digest], []).append(stage)
    return stages_by_group


def _runs_by_group(facts: Facts) -> Counter[int]:
    """Return the number of runs whose chain contains each group."""
    return Counter(facts.groups[digest] for chain in facts.chains for digest in chain.stages if digest in facts.groups)


def _stages_without_sharing(facts: Facts) -> Counter[int]:
    """Return the number of stages by group if every run had trained all that it needs."""
    return Counter(facts.groups[stage.digest] for chain in facts.chains for stage in facts.needed(chain))


def _groups_by_pathway(facts: Facts) -> dict[str, tuple[set[int], set[int]]]:
    """Return for each pathway the groups of its stages, and among these the groups of target stages.

    Stages of one group differ in fold, seed or labels only; they are one node of the pathway graph.
    """
    pathways: dict[str, tuple[set[int], set[int]]] = {}
    for chain in facts.chains:
        path, ends = pathways.setdefault(chain.factors["pathway"], (set(), set()))
        path.update(facts.groups[digest] for digest in chain.stages if digest in facts.groups)
        ends.update(facts.groups[digest] for digest in chain.stages[-1:] if digest in facts.groups)
    return pathways


def _seconds(stages: Sequence[StageFacts]) -> list[float]:
    """Return the seconds of the finished stages."""
    return [stage.seconds for stage in stages if stage.seconds is not None]


def _image_epochs(stages: Sequence[StageFacts]) -> int | None:
    """Return the image-epochs of all stages, None without a plan."""
    epochs = [stage.image_epochs for stage in stages if stage.image_epochs is not None]
    return sum(epochs) if epochs else None


def _cost_text(stages: Sequence[StageFacts]) -> str:
    seconds, epochs = _seconds(stages), _image_epochs(stages)
    parts = [duration(sum(seconds))] if seconds else ["not run yet"]
    return " \N{MIDDLE DOT} ".join(parts + ([] if epochs is None else [f"{epochs:,} image-epochs"]))


def cost_blocks(facts: Facts) -> Iterator[Block]:
    """Yield the cost of the finished stages, and the cost if every run had trained its whole chain."""
    if not facts.finished:
        yield Text(text="No stage is finished yet.")
        return
    spent = sum(_seconds(facts.finished))
    without_sharing = sum(stage.seconds or 0.0 for chain in facts.chains for stage in facts.needed(chain))
    runtimes = [facts.runtime(stage.digest) for stage in facts.finished]
    cpu = sum(
        (stage.seconds or 0.0) * runtime.get("cpus", 1) for stage, runtime in zip(facts.finished, runtimes, strict=True)
    )
    yield Text(
        text=f"{len(facts.finished):,} finished stages took {duration(spent)} of training and scoring, "
        f"{duration(cpu)} of CPU time."
    )
    yield Text(text=_gpu_hours(facts, runtimes))
    if without_sharing > spent:
        yield Text(
            text=f"If every run trained all stages of its pathway, this would take {duration(without_sharing)}: "
            f"sharing saved {duration(without_sharing - spent)} ({1 - spent / without_sharing:.0%})."
        )
    yield _cost_grid(facts)


def _cost_grid(facts: Facts) -> Grid:
    uses, rows = _stages_without_sharing(facts), []
    for group, stages in _stages_by_group(facts).items():
        seconds, epochs = _seconds(stages), _image_epochs(stages)
        parent = facts.stages.get(stages[0].parent or "")
        rows.append([
            GridCell(stages[0].name),
            GridCell(f"{parent.name} ({stages[0].link})" if parent and stages[0].carries else "initial weights"),
            GridCell(f"{stages[0].task} on {stages[0].data}"),
            count(len(stages)),
            count(len(seconds)),
            count(uses[group]),
            GridCell(duration(sum(seconds)), sum(seconds)),
            GridCell("unknown", None) if epochs is None else count(epochs),
        ])  # fmt: skip
    columns = [
        *text_columns("stage", "initialised from", "task"),
        *number_columns("stages", "finished", "without sharing", "time", "image-epochs"),
    ]
    caption = "Cost of each step of the pathways. An image-epoch is one image passed through the network once."
    return Grid(caption=caption, columns=columns, rows=rows)


def _gpu_hours(facts: Facts, runtimes: Sequence[Mapping[str, Any]]) -> str:
    devices = {str(runtime["device"]) for runtime in runtimes if "device" in runtime}
    if not devices:
        return "GPU hours: the stages do not record which device they ran on."
    seconds = sum(
        stage.seconds or 0.0
        for stage, runtime in zip(facts.finished, runtimes, strict=True)
        if str(runtime.get("device", "")).startswith("cuda")
    )
    return f"GPU hours used: {seconds / 3600:.2f}." if seconds else "No GPU was used."
