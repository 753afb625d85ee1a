"""Each kind of figure shows its data, and refuses data that it cannot show. Texts are comments in SVG."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from results import figures
from results.figures import Group, History, Interval, OutlinedCase, Pairs, TrialValues
from results.metrics.formulas import Confidence

BARS = {"none": {"lung": Interval(0.6, 0.5, 0.7)}, "two_step": {"lung": Interval(0.8, None, None)}}
BINS = Confidence(count=np.array([[0.0, 10, 30]]), total=np.array([[0.0, 6, 27]]), correct=np.array([[0.0, 5, 30]]))
SPLIT = (np.array([0.0, 1, 9]), np.array([8.0, 2, 0]))
RUN = History(loss=[(1, 1.0), (2, 0.5)], validation_loss=[], score=[(1, 0.3), (2, 0.4)])
ROOT = Group(title="classify", lines=["1 stage"], parent=None, link="", ends=[], shared=2)
LEAF = Group(title="segment", lines=["6 stages"], parent=0, link="encoder", ends=["one_step"], shared=1)
NAMES = ["background", "lung"]
SQUARE = np.zeros((1, 8, 8), dtype=bool)
SQUARE[0, 2:6, 2:] = True
CASE = OutlinedCase(title="worst", pixels=np.zeros((8, 8), np.uint8), truth=SQUARE, predicted=~SQUARE)
TRIALS = [
    TrialValues(number=0, values=[0.5, 0.2], settings={"lr": 1e-3, "optimizer": "adam"}),
    TrialValues(number=1, values=[0.4, 0.3], settings={"lr": 1e-1, "optimizer": "sgd"}),
    TrialValues(number=3, values=[0.6, 0.4], settings={"lr": 1e-2, "optimizer": "sgd", "momentum": 0.9}),
]
PAIRS = Pairs(label="two_step, 8 images", differences=[0.1, 0.2], seeds=[0, 1], p=0.02)

ALL: dict[str, tuple[Callable[[], Figure], list[str]]] = {
    "classes": (lambda: figures.class_bars(BARS, label="Dice"), ["none", "two_step", "lung", "Dice"]),
    "reliability": (lambda: figures.reliability({"none": BINS}), ["none (ECE 0.100)"]),
    "roc": (lambda: figures.roc({"lung": {"none": SPLIT}}), ["lung", "none", "AUC 0.990"]),
    "confusion": (lambda: figures.confusion(np.array([[3, 1], [0, 4]]), NAMES), ["75%", "25%", "100%"]),
    "training": (lambda: figures.training_curves({"a": [RUN]}, {"a": "mean IoU"}), ["Validation mean IoU", "Epoch"]),
    "pairs": (lambda: figures.paired_differences([PAIRS], label="x"), ["two_step, 8 images", "0.02", "Adjusted p"]),
    "pathways": (lambda: figures.pathway_graph([ROOT, LEAF]), ["classify", "transfers: encoder", "one_step"]),
    "cases": (lambda: figures.outline_cases([CASE], ["lung"]), ["worst", "lung", "Ground truth", "False positive"]),
    "history": (lambda: figures.search_history(TRIALS, label="Dice", maximised=True), ["Trial", "Dice", "Best so far"]),
    "importance": (lambda: figures.setting_importance({"lr": 0.7, "loss": 0.3}), ["lr", "0.70", "0.30"]),
    "parallel": (lambda: figures.parallel_settings(TRIALS, label="Dice"), ["Dice", "lr", "0.001", "adam", "sgd"]),
    "front": (
        lambda: figures.pareto_front(TRIALS, labels=["Dice", "loss"], maximised=[True, False]),
        ["Dice", "loss", "Pareto-optimal trial"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_a_figure_contains_its_labels(name: str) -> None:
    draw, words = ALL[name]
    text = figures.svg(draw())
    for word in words:
        assert f"<!-- {word} -->" in text


@pytest.mark.parametrize("shape", [(6, 14), (14, 6)])
def test_outlines_fit_images_that_are_not_square(shape: tuple[int, int]) -> None:
    mask = np.zeros((1, *shape), dtype=bool)
    mask[0, 2:5, 3:5] = True
    case = OutlinedCase(title="a", pixels=np.zeros(shape, np.uint8), truth=mask, predicted=mask)
    first, second = figures.outline_cases([case], ["lung"]).axes
    assert second.get_xlim() == (-0.5, shape[1] - 0.5)
    assert second.get_ylim() == (shape[0] - 0.5, -0.5)
    points = np.concatenate([path.vertices for line in second.collections for path in line.get_paths()])
    assert points.min(axis=0).tolist() == [2.5, 1.5]  # halfway between the pixels
    assert points.max(axis=0).tolist() == [4.5, 4.5]
    assert first.get_xlim() == second.get_xlim()


@pytest.mark.parametrize("name", ALL)
def test_equal_figures_are_equal_svg_files(name: str) -> None:
    draw, _ = ALL[name]
    assert figures.svg(draw()) == figures.svg(draw())


@pytest.mark.parametrize("suffix", figures.FORMATS)
def test_a_figure_is_written_in_every_format(suffix: str, tmp_path: Path) -> None:
    begins = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
    figures.save(figures.pathway_graph([ROOT, LEAF]), tmp_path / f"new/pathways{suffix}")
    assert (tmp_path / f"new/pathways{suffix}").read_bytes().startswith(begins[suffix])


REFUSED: dict[str, Callable[[], Figure]] = {
    "arms are 0; allowed: 1 to 7": lambda: figures.class_bars({}, label="Dice"),
    "arms are 8; allowed: 1 to 7": lambda: figures.class_bars({str(n): {} for n in range(8)}, label="Dice"),
    r"counts are \(2, 2\); allowed: 1 x 1": lambda: figures.confusion(np.eye(2, dtype=np.int64), ["lung"]),
    "stages are none": lambda: figures.training_curves({}, {}),
    "comparisons are none": lambda: figures.paired_differences([], label="x"),
    "groups are none": lambda: figures.pathway_graph([]),
    "cases are none": lambda: figures.outline_cases([], []),
    "trials are none": lambda: figures.search_history([], label="Dice", maximised=True),
    "settings are none": lambda: figures.setting_importance({}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_unsuitable_data_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_the_area_under_a_drawn_curve_equals_that_of_its_histograms() -> None:
    from sklearn.metrics import roc_auc_score

    positives, negatives = np.array([1.0, 4, 2, 9]), np.array([7.0, 3, 3, 1])
    truth = np.repeat([1, 1, 1, 1, 0, 0, 0, 0], np.concatenate([positives, negatives]).astype(int))
    score = np.repeat([0, 1, 2, 3, 0, 1, 2, 3], np.concatenate([positives, negatives]).astype(int))
    text = figures.svg(figures.roc({"lung": {"none": (positives, negatives)}}))
    assert f"<!-- AUC {roc_auc_score(truth, score):.3f} -->" in text


def test_a_class_absent_from_the_truth_has_an_empty_row_of_confusion() -> None:
    text = figures.svg(figures.confusion(np.array([[3, 1], [0, 0]]), ["background", "lung"]))
    assert text.count("% -->") == 2
    assert "nan" not in text


def test_stages_with_a_common_parent_are_in_one_column_with_the_parent_at_their_centre() -> None:
    from results.figures.pathways import _columns, _rows

    groups = [ROOT, LEAF, LEAF, Group(title="alone", lines=[], parent=None, link="", ends=["none"], shared=1)]
    assert _columns(groups) == [0, 1, 1, 0]
    assert _rows(groups) == [0.5, 0, 1, 2]


def test_outlines_at_the_edge_are_closed() -> None:
    figure = figures.outline_cases([CASE], ["lung"])
    drawn = [path for lines in figure.axes[1].collections for path in lines.get_paths() if len(path.vertices)]
    assert drawn
    for path in drawn:
        assert np.allclose(path.vertices[0], path.vertices[-1]) or 79 in (path.codes if path.codes is not None else ())


def test_the_numbers_of_pixels_are_labelled_with_powers_of_ten() -> None:
    text = figures.svg(figures.reliability({"none": BINS}))
    assert "<!-- 10\u00b9 -->" in text
    assert "mathdefault" not in text


def test_points_below_the_lowest_confidence_are_within_the_axes() -> None:
    bins = Confidence(count=np.array([[10.0, 10]]), total=np.array([[6.0, 9]]), correct=np.array([[2.0, 9]]))
    axes = figures.reliability({"none": bins}).axes[0]
    assert axes.get_ylim()[0] < 0.2


def test_the_area_has_the_interval_that_is_given() -> None:
    areas = {"lung": {"none": Interval(0.913, 0.876, 0.95)}}
    text = figures.svg(figures.roc({"lung": {"none": SPLIT}}, areas=areas))
    assert "<!-- AUC 0.91 (0.88\N{EN DASH}0.95) -->" in text


def test_pixels_are_shaded_as_true_positive_false_positive_and_false_negative() -> None:
    from matplotlib.colors import to_rgba

    from results.figures.cases import AGREEMENT, PREDICTION, SHADE, TRUTH

    truth, predicted = np.array([[[True, True, False, False]]]), np.array([[[True, False, True, False]]])
    case = OutlinedCase(title="a", pixels=np.zeros((1, 4), np.uint8), truth=truth, predicted=predicted)
    second = figures.outline_cases([case], ["lung"]).axes[1]
    shading = np.asarray(second.get_images()[1].get_array())
    expected = [to_rgba(AGREEMENT, SHADE), to_rgba(TRUTH, SHADE), to_rgba(PREDICTION, SHADE), (0, 0, 0, 0)]
    assert np.allclose(shading[0], expected)


def test_cases_are_drawn_pixel_by_pixel() -> None:
    images = [image for axes in figures.outline_cases([CASE], ["lung"]).axes for image in axes.get_images()]
    assert {image.get_interpolation() for image in images} == {"none"}
    assert {axes.get_aspect() for axes in figures.outline_cases([CASE], ["lung"]).axes} == {1.0}


def test_of_many_classes_those_with_most_pixels_have_rows() -> None:
    masks = np.zeros((6, 8, 8), dtype=bool)
    for k, size in enumerate((1, 5, 2, 7, 3, 6)):
        masks[k, :size] = True
    case = OutlinedCase(title="a", pixels=np.zeros((8, 8), np.uint8), truth=masks, predicted=masks)
    assert figures.shown_classes([case], list("abcdef")) == [1, 3, 4, 5]
    assert len(figures.outline_cases([case], list("abcdef")).axes) == 5


def test_the_best_value_so_far_of_a_search_never_gets_worse() -> None:
    maximised, minimised = (figures.search_history(TRIALS, label="x", maximised=up).axes[0] for up in (True, False))
    assert list(maximised.lines[1].get_ydata()) == [0.5, 0.5, 0.6]
    assert list(minimised.lines[1].get_ydata()) == [0.5, 0.4, 0.4]


def test_trials_that_another_one_dominates_are_not_pareto_optimal() -> None:
    axes = figures.pareto_front(TRIALS, labels=["Dice", "loss"], maximised=[True, False]).axes[0]
    dominated, optimal = (line.get_xydata().tolist() for line in axes.lines)
    assert (dominated, optimal) == ([[0.4, 0.3]], [[0.5, 0.2], [0.6, 0.4]])


def test_numbers_of_a_logarithmic_setting_are_evenly_spaced() -> None:
    axes = figures.parallel_settings(TRIALS, label="Dice", logarithmic=["lr"]).axes[0]
    heights = sorted(line.get_ydata()[1] for line in axes.lines[: len(TRIALS)])
    assert np.allclose(heights, [0.0, 0.5, 1.0])


def test_settings_that_some_trials_do_not_have_are_left_out() -> None:
    assert "momentum" not in figures.svg(figures.parallel_settings(TRIALS[::-1], label="Dice"))


@pytest.mark.parametrize(("width", "columns"), [(60.0, 3), (180.0, 5)])
def test_classes_are_beside_their_image_where_there_is_room(width: float, columns: int) -> None:
    masks = np.ones((4, 8, 8), dtype=bool)
    cases = [
        OutlinedCase(title=str(n), pixels=np.zeros((8, 8), np.uint8), truth=masks, predicted=masks) for n in range(3)
    ]
    with figures.figure_style(figures.FigureStyle(font=7.0, line=1.0, width=width)):
        place = figures.outline_cases(cases, list("abcd")).axes[0].get_subplotspec()
    assert place is not None
    assert place.get_gridspec().ncols == columns
