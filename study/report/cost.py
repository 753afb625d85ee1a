"""Sections of the report on the stages of the pathways and their cost."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from results.figures import Group
from results.report.page import Block, Column, Entry, Grid, Text
from study.monitoring.units import count, duration
from study.report.facts import Facts, Stage


def pathway_groups(facts: Facts) -> list[Group]:
    """Return the nodes of the pathway graph."""
    stages_stages_by_group, chains = _stages_by_group(facts), _pathways(facts)
    naive = Counter(facts.groups[digest] for chain in facts.chains for digest in chain.stages if digest in facts.groups)
    groups = []
    for group, stages in stages_stages_by_group.items():
        first = stages[0]
        through = [name for name, (path, _) in chains.items() if group in path]
        uses = naive[group]
        shared = f", {'serves' if len(stages) == 1 else 'serve'} {uses:,} runs" if uses > len(stages) else ""
        noun = "stage" if len(stages) == 1 else "stages"
        groups.append(Group(
            title=first.name,
            lines=[f"{first.task} on {first.data}", f"{len(stages):,} {noun}{shared}", _cost(stages)],
            parent=facts.groups.get(first.parent or ""),
            link=first.link,
            ends=[name for name, (_, ends) in chains.items() if group in ends],
            shared=len(through),
        ))  # fmt: skip
    return groups


def _stages_by_group(facts: Facts) -> dict[int, list[Stage]]:
    stages_stages_by_group: dict[int, list[Stage]] = {}
    for digest, stage in facts.stages.items():
        stages_stages_by_group.setdefault(facts.groups[digest], []).append(stage)
    return stages_stages_by_group


def _pathways(facts: Facts) -> dict[str, tuple[set[int], set[int]]]:
    """Return for each pathway its groups and its last groups."""
    pathways: dict[str, tuple[set[int], set[int]]] = {}
    for chain in facts.chains:
        path, ends = pathways.setdefault(chain.factors["pathway"], (set(), set()))
        path.update(facts.groups[digest] for digest in chain.stages if digest in facts.groups)
        ends.update(facts.groups[digest] for digest in chain.stages[-1:] if digest in facts.groups)
    return pathways


def _cost(stages: Sequence[Stage]) -> str:
    seconds = [stage.seconds for stage in stages if stage.seconds is not None]
    epochs = [stage.image_epochs for stage in stages if stage.image_epochs is not None]
    parts = [duration(sum(seconds))] if seconds else ["not run yet"]
    return " · ".join(parts + ([f"{sum(epochs):,} image-epochs"] if epochs else []))


def cost_blocks(facts: Facts) -> Iterator[Block]:
    """Yield the cost of the finished stages, and the cost if every run had trained its whole chain."""
    spent = sum(stage.seconds or 0.0 for stage in facts.finished)
    if not facts.finished:
        yield Text(text="No stage is finished yet.")
        return
    naive = sum(facts.stages[d].seconds or 0.0 for chain in facts.chains for d in chain.stages if d in facts.stages)
    runtimes = [facts.runtime(stage.digest) for stage in facts.finished]
    cpu = sum(
        (stage.seconds or 0.0) * runtime.get("cpus", 1) for stage, runtime in zip(facts.finished, runtimes, strict=True)
    )
    yield Text(
        text=f"{len(facts.finished):,} finished stages took {duration(spent)} of training and scoring, "
        f"{duration(cpu)} of CPU time."
    )
    yield Text(text=_gpu_hours(facts, runtimes))
    if naive > spent:
        yield Text(
            text=f"Had every run trained its whole pathway by itself, the same would have taken {duration(naive)}: "
            f"sharing saved {duration(naive - spent)} ({1 - spent / naive:.0%})."
        )
    naive_stages = Counter(facts.groups[d] for chain in facts.chains for d in chain.stages if d in facts.groups)
    rows = []
    for group, stages in _stages_by_group(facts).items():
        done = [stage.seconds for stage in stages if stage.seconds is not None]
        epochs = [stage.image_epochs for stage in stages if stage.image_epochs is not None]
        parent = facts.stages.get(stages[0].parent or "")
        rows.append([
            Entry(stages[0].name),
            Entry(f"{parent.name} ({stages[0].link})" if parent else "its initial weights"),
            Entry(f"{stages[0].task} on {stages[0].data}"),
            count(len(stages)),
            count(len(done)),
            count(naive_stages[group]),
            Entry(duration(sum(done)), sum(done)),
            Entry(f"{sum(epochs):,}" if epochs else "not known", float(sum(epochs)) if epochs else None),
        ])  # fmt: skip
    names = ("stages", "finished", "without sharing", "time", "image-epochs")
    columns = [Column(name="stage"), Column(name="starts from"), Column(name="learns")]
    caption = "What each step of the pathways cost. An image-epoch is one image passed through the network once."
    yield Grid(caption=caption, columns=[*columns, *(Column(name=name, number=True) for name in names)], rows=rows)


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
