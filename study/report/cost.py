"""The parts of a report that tell how stages follow on each other and what they cost."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from results.figures import Group
from results.report.page import Block, Column, Entry, Grid, Text
from study.monitoring.units import count, duration
from study.report.facts import Facts, Stage


def pathway_groups(facts: Facts) -> list[Group]:
    """Return the boxes of the pathway graph."""
    of_group, chains = _by_group(facts), _pathways(facts)
    naive = Counter(facts.groups[digest] for chain in facts.chains for digest in chain.stages if digest in facts.groups)
    groups = []
    for place, stages in of_group.items():
        first = stages[0]
        through = [name for name, (path, _) in chains.items() if place in path]
        uses = naive[place]
        shared = f", {'serves' if len(stages) == 1 else 'serve'} {uses:,} runs" if uses > len(stages) else ""
        many = "stage" if len(stages) == 1 else "stages"
        groups.append(Group(
            title=first.name,
            lines=[f"{first.task} on {first.data}", f"{len(stages):,} {many}{shared}", _cost(stages)],
            parent=facts.groups.get(first.parent or ""),
            link=first.link,
            ends=[name for name, (_, ends) in chains.items() if place in ends],
            shared=len(through),
        ))  # fmt: skip
    return groups


def _by_group(facts: Facts) -> dict[int, list[Stage]]:
    of_group: dict[int, list[Stage]] = {}
    for digest, stage in facts.stages.items():
        of_group.setdefault(facts.groups[digest], []).append(stage)
    return of_group


def _pathways(facts: Facts) -> dict[str, tuple[set[int], set[int]]]:
    """Return by pathway the groups it runs through and those it ends in."""
    found: dict[str, tuple[set[int], set[int]]] = {}
    for chain in facts.chains:
        path, ends = found.setdefault(chain.factors["pathway"], (set(), set()))
        path.update(facts.groups[digest] for digest in chain.stages if digest in facts.groups)
        ends.update(facts.groups[digest] for digest in chain.stages[-1:] if digest in facts.groups)
    return found


def _cost(stages: Sequence[Stage]) -> str:
    seconds = [stage.seconds for stage in stages if stage.seconds is not None]
    epochs = [stage.image_epochs for stage in stages if stage.image_epochs is not None]
    told = [duration(sum(seconds))] if seconds else ["not run yet"]
    return " · ".join(told + ([f"{sum(epochs):,} image-epochs"] if epochs else []))


def cost_blocks(facts: Facts) -> Iterator[Block]:
    """Yield what was spent, and what training every run's whole chain by itself would have cost."""
    spent = sum(stage.seconds or 0.0 for stage in facts.finished)
    if not facts.finished:
        yield Text(text="No stage is finished yet.")
        return
    naive = sum(facts.stages[d].seconds or 0.0 for chain in facts.chains for d in chain.stages if d in facts.stages)
    told = [facts.runtime(stage.digest) for stage in facts.finished]
    cpu = sum((stage.seconds or 0.0) * one.get("cpus", 1) for stage, one in zip(facts.finished, told, strict=True))
    yield Text(
        text=f"{len(facts.finished):,} finished stages took {duration(spent)} of training and scoring, "
        f"{duration(cpu)} of CPU time."
    )
    yield Text(text=_gpu(facts, told))
    if naive > spent:
        yield Text(
            text=f"Had every run trained its whole pathway by itself, the same would have taken {duration(naive)}: "
            f"sharing saved {duration(naive - spent)} ({1 - spent / naive:.0%})."
        )
    naive_stages = Counter(facts.groups[d] for chain in facts.chains for d in chain.stages if d in facts.groups)
    rows = []
    for place, stages in _by_group(facts).items():
        done = [stage.seconds for stage in stages if stage.seconds is not None]
        epochs = [stage.image_epochs for stage in stages if stage.image_epochs is not None]
        parent = facts.stages.get(stages[0].parent or "")
        rows.append([
            Entry(stages[0].name),
            Entry(f"{parent.name} ({stages[0].link})" if parent else "its initial weights"),
            Entry(f"{stages[0].task} on {stages[0].data}"),
            count(len(stages)),
            count(len(done)),
            count(naive_stages[place]),
            Entry(duration(sum(done)), sum(done)),
            Entry(f"{sum(epochs):,}" if epochs else "not known", float(sum(epochs)) if epochs else None),
        ])  # fmt: skip
    names = ("stages", "finished", "without sharing", "time", "image-epochs")
    columns = [Column(name="stage"), Column(name="starts from"), Column(name="learns")]
    caption = "What each step of the pathways cost. An image-epoch is one image passed through the network once."
    yield Grid(caption=caption, columns=[*columns, *(Column(name=name, number=True) for name in names)], rows=rows)


def _gpu(facts: Facts, told: Sequence[Mapping[str, Any]]) -> str:
    devices = {str(one["device"]) for one in told if "device" in one}
    if not devices:
        return "GPU hours: the stages do not record which device they ran on."
    seconds = sum(
        stage.seconds or 0.0
        for stage, one in zip(facts.finished, told, strict=True)
        if str(one.get("device", "")).startswith("cuda")
    )
    return f"GPU hours used: {seconds / 3600:.2f}." if seconds else "No GPU was used."
