"""`study table --hours` and the comparison at equal hours below the default table."""

from pathlib import Path

import pyarrow as pa
import pytest

from results import schema
from study.analysis.derived_cache import write_derived
from study.cli.main import main
from study.store.paths import BUDGETS, COMPARISONS
from tests.results.tables.test_budgets import THREE, budgets
from tests.results.tables.test_layout import compared, record


def storage(place: Path, table: pa.Table) -> Path:
    """Write a study with comparisons and these budgets."""
    folder = place / "runs" / "studies" / "s"
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text("name: s\n", encoding="utf-8")
    write_derived(folder, {COMPARISONS: compared(record("none", 1.0)), BUDGETS: table}, "fingerprint")
    return place / "runs"


def run_table(place: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["table", "s", "--storage", str(place), *words])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out + printed.err


def test_arms_are_shown_at_equal_hours_with_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = run_table(storage(tmp_path, budgets(*THREE)), capsys, "--hours")
    assert status == 0
    assert "| encode | **0.600** (0.500 to 0.700) |" in text
    assert "With 10 hours of annotation, encode (about 40 masks) reached the best mean IoU" in text


def test_the_default_table_ends_with_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = run_table(storage(tmp_path, budgets(*THREE)), capsys)
    assert status == 0
    assert text.startswith("mean_iou (macro, dataset, test)")
    assert "With 10 hours of annotation, encode (about 40 masks)" in text


@pytest.mark.parametrize(("words", "message"), [
    (["--hours", "--metric", "dcie"], "metric is dcie; allowed: mean_iou"),
    (["--hours", "--columns", "seed"], "--columns is seed; allowed: none with --hours"),
    (["--hours", "--stage", "boxes"], "--hours with --stage; allowed: --metric, --split and --rows"),
])  # fmt: skip
def test_invalid_options_are_refused_in_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = run_table(storage(tmp_path, budgets(*THREE)), capsys, *words)
    assert status == 2
    assert message in text
    assert len(text.strip().splitlines()) == 1


def test_a_study_without_budgets_is_refused_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = run_table(storage(tmp_path, schema.budgets().empty_table()), capsys, "--hours")
    assert status == 2
    assert "--hours needs budgets; allowed: a study with compare.hours; add them to its file and run it again" in text
