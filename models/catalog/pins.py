"""Pin the published weights of the table of backbones to commits: `python -m models.catalog.pins`. Needs the hub.

Downloads no weights: it asks the hub for the commit and the hash of the file of each revision that may change. Weights
for which it does not answer stay as they are. Weights that are pinned already keep their commit, so that finished
stages stay valid.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.catalog import hub
from models.catalog.published import PublishedWeights
from models.catalog.registry import TABLE

Rows = dict[str, dict[str, Any]]


def read_table(table: Path = TABLE) -> Rows:
    """Return the rows of a table by the name of the backbone; none if there is no table yet."""
    rows: Rows = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
    return rows


def write_table(rows: Mapping[str, Mapping[str, Any]], table: Path = TABLE) -> None:
    """Write a table, one row per line."""
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items()]
    table.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def pins_of(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the entries of weights that were pinned here, by repository."""
    entries = [entry for row in rows.values() for entry in row["weights"].values()]
    return {
        weights.repository: entry for entry in entries if (weights := PublishedWeights.parse(entry)).sha256 is not None
    }


def with_pins(weights: Mapping[str, str], pins: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of weights by name, those that are not pinned as `pins` has them."""
    return {
        name: entry
        if PublishedWeights.parse(entry).is_pinned
        else pins.get(PublishedWeights.parse(entry).repository, entry)
        for name, entry in weights.items()
    }


def pin(table: Path = TABLE) -> tuple[int, int]:
    """Pin the weights of a table. Return how many sets of weights were pinned now, and how many are not pinned."""
    rows = read_table(table)
    listed = {PublishedWeights.parse(entry) for row in rows.values() for entry in row["weights"].values()}
    unpinned = [weights for weights in listed if not weights.is_pinned]
    contents = hub.upstream_contents(unpinned) if unpinned and hub.reachable() else {}
    pins = {
        weights.repository: f"{weights.repository}@{content.commit}#{content.sha256}"
        for weights, content in contents.items()
        if content is not None
    }
    write_table({name: row | {"weights": with_pins(row["weights"], pins)} for name, row in rows.items()}, table)
    return len(pins), len(unpinned) - len(pins)


def main() -> None:
    """Pin the weights of the committed table."""
    pinned, left = pin()
    sys.stderr.write(f"{pinned} sets of weights were pinned now; {left} are not pinned\n")


if __name__ == "__main__":
    main()
