"""Golden files: digests of the catalog and storages of finished studies. `python -m tests.golden.write` renews them.

Renew them only with a change that raises a version on purpose (see "Versions in digests" in CONTRIBUTING.md): users'
finished stages train again where a digest changes.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from study.config.document import read_document
from study.planning.graph import Plan
from study.search.load import load_plan
from tests.support.ccxs import write_many_ccxs
from tests.support.covid_lung_boxes import write_covid_lung_boxes
from tests.support.presets import CATALOG, PRESETS, Changes, Maker
from tests.support.searched import searched
from tests.support.tiny import tiny, written

GOLDEN = Path(__file__).parent
DIGESTS = GOLDEN / "digests.json"
FINISHED: dict[str, Callable[[], dict[str, Any]]] = {
    "tiny": lambda: tiny({"keep": {"weights": "none"}}),
    "searched": lambda: searched({"keep": {"weights": "none"}}),
}
"""Study files of the stored storages."""


def _ccxs(folder: Path) -> Changes:
    return (
        f"data.ccxs.root={write_many_ccxs(folder / 'ccxs', images=14)}",
        f"data.boxes.root={write_covid_lung_boxes(folder / 'boxes')}",
    )


PLANNED: dict[str, Maker] = PRESETS | {
    "demo": lambda _: (),
    "search_demo": lambda _: (),
    "ccxs_two_step_small": _ccxs,
}


def catalog_plan(name: str, folder: Path) -> Plan:
    """Plan a study of the catalog on data generated below a folder."""
    document = read_document(CATALOG / f"{name}.yaml", PLANNED[name](folder / "data"))
    return load_plan(document, file=f"{name}.yaml", cache=folder / "cache", storage=folder / "runs")


def digests(plan: Plan) -> dict[str, list[str]]:
    """Return the digests of all stages and the keys of all scores, sorted."""
    return {
        "stages": sorted(plan.nodes),
        "scores": sorted(f"{digest} {key}" for digest, keys in plan.scorings.items() for key in keys),
    }


def _write_digests() -> None:
    with tempfile.TemporaryDirectory() as place:
        by_study = {name: digests(catalog_plan(name, Path(place) / name)) for name in sorted(PLANNED)}
    DIGESTS.write_text(json.dumps(by_study, indent=1) + "\n", encoding="utf-8")


def _write_storage(name: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        file = written(FINISHED[name](), folder)
        storage = folder / "runs"
        command = [sys.executable, "-m", "study", "run", file, "--storage", storage, "--cache", folder / "cache"]
        subprocess.run(command, check=True)
        with tarfile.open(GOLDEN / f"{name}.tar.xz", "w:xz") as archive:
            archive.add(storage, "runs", filter=lambda member: None if member.name.endswith(".png") else member)


if __name__ == "__main__":
    _write_digests()
    for name in FINISHED:
        _write_storage(name)
