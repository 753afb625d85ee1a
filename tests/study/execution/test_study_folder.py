"""Files that the driver writes to the study folder."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from study.analysis.tables import curve_path
from study.cli.ending import outcome_lines
from study.execution.study_folder import draw_learning_curve
from study.run import StudyOutcome
from study.store.paths import COMPARISONS
from tests.support.finished import CLASSES, finished
from tests.support.pictures import picture, save


def write_empty_masks(root: Path) -> None:
    for number in range(6):
        save(picture(number), root / "images" / f"{number}.png")
        save(np.zeros_like(picture(number)), root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES))


def test_undefined_metric_removes_the_learning_curve(tmp_path: Path) -> None:
    study = finished(tmp_path, write=write_empty_masks, changes={"metrics": {"tolerance": 1.0}})
    comparisons = pq.read_table(study.store.study("tiny") / COMPARISONS)
    means = {row["metric"]: row["mean"] for row in comparisons.to_pylist() if row["class"] == "macro"}
    assert {means["mean_iou"], means["hd95"], means["nsd"]} == {None}
    curve = curve_path(study.store, "tiny")
    curve.parent.mkdir(exist_ok=True)
    curve.write_bytes(b"figure of an earlier run")
    draw_learning_curve(study.plan, study.store, comparisons)
    assert not curve.exists()
    outcome = StudyOutcome(
        plan=study.plan, comparisons=comparisons, failures={}, skipped=frozenset(), arms_without_result=()
    )
    assert "no learning curve: its metric is undefined in every cell" in list(outcome_lines(outcome, study.store.root))
