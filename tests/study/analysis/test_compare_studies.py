"""Comparison of two studies of one storage, from files as written by a run."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from results import schema
from study.analysis.compare_studies import comparability_notes, compare_two_studies, read_conditions
from study.cli.main import app
from study.errors import ConfigError
from study.store.atomic import write_signed
from study.store.paths import MANIFEST
from study.store.store import Store, score_files
from tests.results.tables.test_layout import record

WANTED = {"split": "test", "aggregation": "dataset", "metric": "mean_iou", "class": "macro"}


def write_finished(storage: Path, name: str, folds: Sequence[Sequence[str]], key: str = "a-0.5") -> None:
    """Write the files of a finished study of one cell: test images of each fold, results, comparisons."""
    store = Store(storage)
    store.study(name).mkdir(parents=True)
    (store.study(name) / "spec.yaml").write_text(f"name: {name}\n")
    rows = []
    for fold, images in enumerate(folds):
        digest = f"{name}{fold}"
        store.stage(digest).mkdir(parents=True)
        places = [{"image": image, "split": "test"} for image in images] + [{"image": "v", "split": "validation"}]
        pq.write_table(pa.Table.from_pylist(places, schema.images()), store.stage(digest) / score_files(key).images)
        write_signed(store.stage(digest) / MANIFEST, {"updates": 1, "seconds": 1.0, "files": {}})
        rows.append({"fold": fold, "seed": 0, "digest": digest, "scoring": key})
    pq.write_table(pa.Table.from_pylist(rows, schema.results()), store.study(name) / "results.parquet")
    cell = record("none", 0.5, mean=0.5 if name == "s" else 0.55, study=name)
    pq.write_table(pa.Table.from_pylist([cell], schema.comparisons()), store.study(name) / "comparisons.parquet")


FOLDS = (("1", "2"), ("3", "4"))


def notes_of(storage: Path) -> list[str]:
    store = Store(storage)
    return list(comparability_notes(read_conditions(store, "s"), read_conditions(store, "t")))


def test_equally_scored_studies_have_a_difference_and_no_notes(tmp_path: Path) -> None:
    write_finished(tmp_path, "s", FOLDS)
    write_finished(tmp_path, "t", FOLDS)
    ((_, second),) = compare_two_studies(tmp_path, ("s", "t"), WANTED).grid
    assert second is not None
    assert second.record["difference"] == pytest.approx(0.05)
    assert notes_of(tmp_path) == []


def test_other_test_images_are_counted_and_remove_the_difference(tmp_path: Path) -> None:
    write_finished(tmp_path, "s", FOLDS)
    write_finished(tmp_path, "t", (("1", "2"), ("3", "5", "6")))
    ((_, second),) = compare_two_studies(tmp_path, ("s", "t"), WANTED).grid
    assert second is not None
    assert second.record["difference"] is None
    assert notes_of(tmp_path)[0].startswith("Test images differ: 3 shared, 1 only in s, 2 only in t.")


def test_the_same_images_in_other_folds_are_reported(tmp_path: Path) -> None:
    write_finished(tmp_path, "s", FOLDS)
    write_finished(tmp_path, "t", (("1", "3"), ("2", "4")))
    assert notes_of(tmp_path) == ["The test images are the same, in other folds."]


def test_another_evaluation_is_reported(tmp_path: Path) -> None:
    write_finished(tmp_path, "s", FOLDS)
    write_finished(tmp_path, "t", FOLDS, key="b-0.5")
    assert notes_of(tmp_path)[0].startswith("Scored differently: size, threshold, masks or the version")


def test_another_number_of_folds_is_reported(tmp_path: Path) -> None:
    write_finished(tmp_path, "s", FOLDS)
    write_finished(tmp_path, "t", (("1",), ("2",), ("3",), ("4",)))
    assert "Folds x seeds differ: s 2 x 1, t 4 x 1." in notes_of(tmp_path)


def test_the_command_shows_both_studies_in_each_table_format(tmp_path: Path) -> None:
    write_finished(tmp_path, "s", FOLDS)
    write_finished(tmp_path, "t", FOLDS)
    for form, expected in (("md", "| labelled_images | s | t |"), ("csv", "0.55"), ("latex", r"\toprule")):
        result = CliRunner().invoke(app, ["compare", "s", "t", "--storage", str(tmp_path), "--format", form])
        assert result.exit_code == 0, result.output
        assert expected in result.output


def test_a_metric_missing_in_both_studies_is_refused(tmp_path: Path) -> None:
    write_finished(tmp_path, "s", FOLDS)
    write_finished(tmp_path, "t", FOLDS)
    with pytest.raises(ConfigError, match="metric is iou; allowed: mean_iou"):
        compare_two_studies(tmp_path, ("s", "t"), WANTED | {"metric": "iou"})
