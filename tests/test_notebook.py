"""The example notebook: stored without outputs, and every cell runs."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FILE = Path(__file__).parents[1] / "study" / "docs" / "example.ipynb"
SECONDS = 280
"""Guards against a cell that hangs."""


@pytest.fixture
def notebook() -> Any:  # noqa: ANN401 - nbformat has no types
    return nbformat.read(FILE, as_version=4)


def test_the_notebook_is_valid_and_stored_without_outputs(notebook: Any) -> None:  # noqa: ANN401
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_cell_of_the_notebook_runs(
    notebook: Any,  # noqa: ANN401
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(FILE.parents[2]))
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    html = "\n".join(data.get("text/html", "") for data in shown)
    assert "study        notebook" in html
    assert "<strong>notebook</strong>: finished, 9 of 9 stages finished" in html
    assert sum("image/png" in data for data in shown) == 2
