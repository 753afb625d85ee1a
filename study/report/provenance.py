"""Sections of the report on weight transfer, failures, software and how to reproduce the study."""

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from results.report.page import Block, Code, Collapsible, Grid, GridCell, Text, number_columns, text_columns
from study.monitoring.stage_records import stage_warnings
from study.monitoring.units import count
from study.report.facts import Facts, StageFacts

MAX_LINES = 400
"""Maximum number of digests on the page; plan.json contains all of them."""
MAX_LINKS = 60


def transfer_blocks(facts: Facts) -> Iterator[Block]:
    """Yield the tensors that each link transferred, initialised, did not transfer and froze."""
    seen: dict[tuple[int, str], tuple[StageFacts, dict[str, Any]]] = {}
    for stage in facts.finished:
        key = (facts.groups[stage.digest], stage.network)
        if stage.carries and key not in seen and len(seen) < MAX_LINKS:
            transfer = json.loads(facts.store.file(stage.digest, "transfer.json").read_text(encoding="utf-8"))
            seen[key] = (stage, transfer)
    if not seen:
        yield Text(text="No finished stage starts from the weights of another.")
        return
    rows, details = [], []
    for stage, transfer in seen.values():
        parent = facts.stages.get(stage.parent or "")
        sizes = [transfer.get(name, []) for name in ("carried", "new", "left_behind")]
        name = f"{parent.name if parent else (stage.parent or '')[:8]} to {stage.name} ({stage.link})"
        frozen = ", ".join(transfer.get("frozen", [])) or "nothing"
        rows.append([GridCell(name), GridCell(stage.network), *(count(len(part)) for part in sizes), GridCell(frozen)])
        lines = [f"new: {tensor}" for tensor in sizes[1]] + [f"not transferred: {tensor}" for tensor in sizes[2]]
        details.append(Code(label=f"{name}, {stage.network}", text="\n".join(lines) or "nothing"))
    columns = [
        *text_columns("link", "network"),
        *number_columns("transferred", "newly initialised", "not transferred"),
        *text_columns("frozen"),
    ]
    caption = "Numbers of weight tensors by link, read from its first finished stage."
    yield Grid(caption=caption, columns=columns, rows=rows)
    yield Collapsible(title="Names of tensors that are newly initialised or not transferred", blocks=details)


def failure_blocks(facts: Facts, failures: Sequence[Mapping[str, str]]) -> Iterator[Block]:
    """Yield the warnings of stages, and the stages that failed with the first line of their errors."""
    warnings = stage_warnings(facts.store, {stage.digest: stage.task for stage in facts.finished})
    if warnings:
        caption = "Warnings of finished stages."
        cells = [
            [GridCell(facts.stages[digest].name), GridCell(digest[:8]), GridCell("; ".join(messages))]
            for digest, messages in warnings.items()
        ]
        yield Grid(caption=caption, columns=text_columns("stage", "digest", "warning"), rows=cells)
    if not failures:
        yield Text(text="No stage failed.")
        return
    rows = [
        [GridCell(failure["stage"]), GridCell(failure["digest"][:8]), GridCell(failure["error"].partition("\n")[0])]
        for failure in failures
    ]
    columns = text_columns("stage", "digest", "error")
    yield Grid(caption="Failed stages. Running the study again retries them.", columns=columns, rows=rows)


def version_blocks(facts: Facts) -> Iterator[Block]:
    """Yield the library versions of the stages, and a warning if they differ."""
    versions_by_name: dict[str, Counter[str]] = {}
    for stage in facts.finished:
        runtime = facts.runtime(stage.digest)
        for name, version in {"python": runtime.get("python"), **runtime.get("libraries", {})}.items():
            if version:
                versions_by_name.setdefault(name, Counter())[str(version)] += 1
    mixed = [name for name, versions in versions_by_name.items() if len(versions) > 1]
    if mixed:
        yield Text(text=f"Stages were trained with several versions of {', '.join(mixed)}.", strong=True)
    rows = [
        [GridCell(name), GridCell(", ".join(f"{version} ({count} stages)" for version, count in versions.items()))]
        for name, versions in versions_by_name.items()
    ]
    yield Grid(caption="Software of the finished stages.", columns=text_columns("library", "version"), rows=rows)


def reproduction_blocks(facts: Facts, spec: str, storage: str) -> Iterator[Block]:
    """Yield the study file, the commands and the digests to reproduce the study."""
    option = "" if storage == "runs" else f" --storage {shlex.quote(storage)}"
    commands = [
        f"study plan {facts.name}.yaml",
        f"study run {facts.name}.yaml{option}",
        f"study report {facts.name}{option}",
    ]
    yield Text(
        text=f"Save the study file below as {facts.name}.yaml. Stages with the digests below are not trained again."
    )
    yield Code(label="Commands", text="\n".join(commands))
    yield Collapsible(title="Study file", blocks=[Code(label="Study file (YAML)", text=spec)])
    lines = [f"{digest}  {stage.name}" for digest, stage in facts.stages.items()]
    remainder = [f"and {len(lines) - MAX_LINES} more, all in plan.json"] if len(lines) > MAX_LINES else []
    text = "\n".join(lines[:MAX_LINES] + remainder)
    yield Collapsible(title=f"Digests of {len(lines)} stages", blocks=[Code(label="Digest and stage", text=text)])
