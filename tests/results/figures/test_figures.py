from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from results import schema
from results.figures import curves, learning_curve


def compared(*, pathways: int = 3, backbones: int = 1, weights: int = 1, **changes: object) -> pa.Table:
    records: list[dict[str, Any]] = [
        {
            "study": "s",
            "architecture": "unet",
            "backbone": f"backbone{b}",
            "initial_weights": f"weights{w}",
            "pathway": f"pathway{p}",
            "labelled_fraction": size / 32,
            "labelled_images": size,
            "split": "test",
            "aggregation": "dataset",
            "class": "macro",
            "metric": "mean_iou",
            "mean": 0.3 + 0.01 * size + 0.02 * p,
            "ci_low": 0.25,
            "ci_high": 0.8,
            "n": 10,
            "baseline": "",
            "test": "",
            "generalises_to": "new training sets",
            "provisional": False,
            "note": "",
            **changes,
        }
        for p, b, w, size in product(range(pathways), range(backbones), range(weights), (8, 16, 32))
    ]
    return pa.Table.from_pylist(records, schema.comparisons())


def svg(comparisons: pa.Table, folder: Path) -> str:
    path = folder / "new" / "curve.svg"
    learning_curve(comparisons, metric="mean_iou", path=path)
    return path.read_text()


def test_png_is_an_image_that_is_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    learning_curve(compared(), metric="mean_iou", path=path)
    with Image.open(path) as image:
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 50


def test_every_backbone_has_a_panel_and_every_pathway_a_colour(tmp_path: Path) -> None:
    text = svg(compared(backbones=2), tmp_path)
    assert text.count("<!-- unet, backbone") == 2
    for colour in ("#0072b2", "#d55e00", "#009e73"):
        assert colour in text
    assert "#cc79a7" not in text


def test_a_further_factor_has_its_own_lines_where_it_varies(
    tmp_path: Path,
) -> None:
    assert "<!-- Initial weights: weights1 -->" in svg(compared(weights=2), tmp_path)
    assert "weights0 -->" not in svg(compared(weights=1), tmp_path)


def test_arms_beyond_the_number_of_colours_are_drawn(tmp_path: Path) -> None:
    assert "<!-- pathway11 -->" in svg(compared(pathways=12), tmp_path)


def test_arms_without_an_interval_are_drawn_and_undefined_ones_are_not(tmp_path: Path) -> None:
    assert "<!-- pathway0 -->" in svg(compared(ci_low=None, ci_high=None), tmp_path)
    both = pa.concat_tables([compared(), compared(pathway="broken", mean=None)])
    assert "<!-- broken -->" not in svg(both, tmp_path)


def test_cells_of_an_incomplete_study_are_drawn(tmp_path: Path) -> None:
    both = pa.concat_tables([compared(), compared(pathway="late", provisional=True)])
    assert "<!-- late -->" in svg(both, tmp_path)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path ends in '.txt'; allowed: .png, .svg, .pdf; rename"):
        learning_curve(compared(), metric="mean_iou", path=tmp_path / "curve.txt")


def test_a_metric_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metric is dice; allowed: mean_iou"):
        learning_curve(compared(), metric="dice", path=tmp_path / "curve.png")


def test_a_metric_without_any_defined_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mean_iou is undefined in every cell"):
        learning_curve(compared(mean=None), metric="mean_iou", path=tmp_path / "curve.png")


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "Mean IoU (pooled over test images)"),
        ({"class": "heart", "aggregation": "case"}, "Mean IoU, heart (mean over test images)"),
        ({"split": "test_thresholded"}, "Mean IoU (pooled over test images, at the class thresholds)"),
    ],
)
def test_axis_labels_are_words(changes: dict[str, str], label: str) -> None:
    selection = {name.replace("class", "class_"): value for name, value in changes.items()}
    (axes,) = curves(compared(**changes), **selection).axes  # type: ignore[arg-type]
    assert " ".join(axes.get_ylabel().split()) == label  # long labels are broken into lines
    assert axes.get_xlabel() == "Labelled training images"


def replicates(comparisons: pa.Table) -> pa.Table:
    """Two replicates of each cell, 0.05 below and above its mean."""
    rows = [
        {**{name: record[name] for name in schema.results().names if name in record}, "updates": 1, "seed": 0,
         "fold": fold, "value": record["mean"] + offset, "images": 4, "digest": "d", "scoring": ""}
        for record in comparisons.to_pylist()
        for fold, offset in enumerate((-0.05, 0.05))
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema.results())


def test_every_replicate_is_a_point_beside_its_mean() -> None:
    comparisons = compared(pathways=2)
    figure = curves(comparisons, results=replicates(comparisons))
    points = [line for line in figure.axes[0].lines if line.get_marker() == "."]
    for line, shift in zip(points, (0.0, 0.02), strict=True):
        means = [0.3 + 0.01 * size + shift for size in (8, 16, 32)]
        assert list(line.get_ydata()) == pytest.approx([mean + offset for mean in means for offset in (-0.05, 0.05)])
        assert list(line.get_xdata()) == pytest.approx([8, 8, 16, 16, 32, 32], abs=1.0)
        assert len(set(line.get_xdata())) == 6
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["One replicate"]


def test_ticks_are_numbers_of_images_on_a_logarithmic_axis_too() -> None:
    axes = curves(compared(), log=True).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["32", "16", "8"]
