"""Tables are computed once, and again only after one of their inputs has changed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from study.analysis.tables import curve_path, write_outcome
from study.config.document import with_paths
from study.planning.graph import Plan
from study.search.load import load_plan
from study.store.damage import DamagedStageError
from study.store.paths import COMPARISONS, MEASURED, RESULTS, TESTS
from study.store.store import Store, score_files
from tests.bench.resume import _document, _finish
from tests.support.damage import flip

TABLES = (RESULTS, COMPARISONS, TESTS)


def document(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - as in a study file
    small = {"compare.folds": 2, "compare.labelled_fraction": [0.5, 1.0]}
    return with_paths(_document(seeds=2), small | changes)


def planned(cache: Path, **changes: Any) -> Plan:  # noqa: ANN401 - as in a study file
    return load_plan(document(**changes), file="finished", cache=cache)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A finished study with its tables."""
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    _finish(plan, store)
    write_outcome(plan, store)
    return store


def tables(store: Store) -> list[pa.Table]:
    return [pq.read_table(store.study("finished") / name) for name in TABLES]


def times(store: Store) -> list[int]:
    return [(store.study("finished") / name).stat().st_mtime_ns for name in TABLES]


def recomputed(store: Store, plan: Plan) -> list[pa.Table]:
    for name in (*TABLES, MEASURED):
        (store.study("finished") / name).unlink()
    write_outcome(plan, store)
    return tables(store)


def test_tables_of_an_unchanged_study_are_kept(store: Store, tmp_path: Path) -> None:
    before, content = times(store), tables(store)[1]
    assert write_outcome(planned(tmp_path), store).equals(content, check_metadata=False)
    assert times(store) == before


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("harm", ["missing", "cut off", "one bit flipped", "older columns"])
def test_a_truncated_table_is_written_again(name: str, harm: str, store: Store, tmp_path: Path) -> None:
    before, file = tables(store), store.study("finished") / name
    if harm == "missing":
        file.unlink()
    elif harm == "cut off":
        file.write_bytes(file.read_bytes()[:-9])
    elif harm == "one bit flipped":
        flip(file, 100)
    else:
        pq.write_table(pq.read_table(file).drop_columns("metric"), file)
    write_outcome(planned(tmp_path), store)
    assert tables(store) == before


def test_altered_scores_are_not_measured(store: Store, tmp_path: Path) -> None:
    plan, before = planned(tmp_path), tables(store)
    replicate = plan.replicates[0]
    file = store.scores(replicate.chain[-1], replicate.scoring.key)
    pq.write_table(_without_hits(pq.read_table(file)), file)
    with pytest.raises(DamagedStageError, match=rf"{file.name} was altered after it was written"):
        write_outcome(plan, store)
    assert tables(store) == before


def test_stage_that_was_scored_again_is_measured_again(store: Store, tmp_path: Path) -> None:
    plan, before = planned(tmp_path), tables(store)
    stage = plan.replicates[0].chain[-1], plan.replicates[0].scoring.key
    scores, images = pq.read_table(store.scores(*stage)), pq.read_table(store.images(*stage))
    store.set_aside(DamagedStageError(stage[0], "damaged for a test", f"scores-{stage[1]}.parquet"))
    store.add_scores(*stage, _without_hits(scores), images)
    write_outcome(plan, store)
    after = tables(store)
    assert after != before
    assert after == recomputed(store, plan)


def _without_hits(scores: pa.Table) -> pa.Table:
    return scores.set_column(scores.column_names.index("tp"), "tp", pa.array([0] * len(scores)))


@pytest.mark.parametrize("changes", [{"metrics.background": True}, {"compare.baseline": []}, {"compare.folds": 3}])
def test_tables_depend_on_the_settings_of_the_study(changes: dict[str, Any], store: Store, tmp_path: Path) -> None:
    plan, before = planned(tmp_path, **changes), times(store)
    write_outcome(plan, store)
    after = tables(store)
    assert all(new != old for new, old in zip(times(store), before, strict=True))
    assert after == recomputed(store, plan)


def test_measured_stages_are_not_read_again(store: Store, tmp_path: Path) -> None:
    for replicate in planned(tmp_path).replicates:
        for name in score_files(replicate.scoring.key):
            file = store.stage(replicate.chain[-1]) / name
            status = file.stat()
            file.write_bytes(b"x" * status.st_size)  # unreadable, with unchanged size and time
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    extended = planned(tmp_path, **{"compare.seeds": [0, 1, 2]})
    new = [replicate for replicate in extended.replicates if replicate.seed == 2]
    rest = planned(tmp_path, **{"compare.seeds": [2]})
    _finish(rest, store)
    write_outcome(extended, store)
    assert set(pq.read_table(store.study("finished") / RESULTS)["seed"].to_pylist()) == {0, 1, 2}
    assert {replicate.chain[-1] for replicate in new} == {replicate.chain[-1] for replicate in rest.replicates}


def test_a_finished_study_is_evaluated_without_torch_and_ray(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "finished.yaml"
    file.write_text(yaml.safe_dump(document()), encoding="utf-8")
    code = (
        "import sys\nfrom study.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    assert not end.code\nprint('imported', *{'torch', 'ray', 'matplotlib'} & set(sys.modules))"
    )
    words = ["run", str(file), "--storage", str(store.root), "--cache", str(tmp_path)]

    def run() -> str:
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1]

    assert run() == "imported matplotlib"
    figure_time = curve_path(store, "finished").stat().st_mtime_ns
    assert run() == "imported"
    assert curve_path(store, "finished").stat().st_mtime_ns == figure_time
