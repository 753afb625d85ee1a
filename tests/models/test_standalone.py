"""The program of exported networks repeats what the platform does to images, without OpenCV."""

import ast
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from datasets.decoding.decode import luma, read
from datasets.resampling import resized
from models import standalone
from study.training.prediction.views import views_of

SHAPES = [
    ((64, 48), (32, 24)),
    ((64, 48), (32, 32)),
    ((50, 70), (23, 32)),
    ((50, 70), (50, 31)),
    ((20, 30), (64, 64)),
    ((20, 90), (64, 64)),
    ((90, 20), (41, 64)),
    ((33, 33), (33, 33)),
    ((3, 5), (7, 2)),
]


def pixels(shape: tuple[int, int], channels: int) -> standalone.Image:
    """Return a smooth image with noise."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    wave = 120 + 80 * np.sin(rows / 5) * np.cos(columns / 7)
    return np.stack([(wave + random.normal(0, 20, shape)).clip(0, 255) for _ in range(channels)], axis=2).astype(
        np.uint8
    )


def test_it_imports_nothing_but_torch_and_numpy() -> None:
    tree = ast.parse(Path(standalone.__file__).read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in imported}
    assert roots - sys.stdlib_module_names == {"numpy", "torch"}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("shape", "new"), SHAPES, ids=str)
def test_resizing_differs_from_opencv_by_rounding_alone(
    shape: tuple[int, int], new: tuple[int, int], channels: int
) -> None:
    image = pixels(shape, channels)
    shrinks = new[0] < shape[0] or new[1] < shape[1]
    expected = resized(image, *new, shrinks=shrinks).reshape(*new, channels).astype(int)
    difference = np.abs(standalone.resize(image, *new, shrinks=shrinks).astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.2


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "LA", "RGBA", "P", "I;16"])
def test_files_are_read_as_the_platform_decodes_them(mode: str, tmp_path: Path) -> None:
    colours = pixels((20, 30), 3)
    if mode == "I;16":
        picture = PIL.Image.fromarray(colours[..., 0].astype(np.uint16) * 100)
    else:
        picture = PIL.Image.fromarray(colours).convert(mode)
    picture.save(tmp_path / "image.png")
    np.testing.assert_array_equal(standalone.read(tmp_path / "image.png"), read(tmp_path / "image.png", "image"))


def test_grey_of_colour_equals_opencv() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    np.testing.assert_array_equal(standalone.luma(colours), luma(colours))


@pytest.mark.parametrize("tta", [[], ["flip"], ["flip", "rotate"], ["vertical_flip", "flip"], ["rotate"]], ids=str)
def test_views_are_those_of_the_platform(tta: list[str]) -> None:
    assert list(standalone._views(tta)) == [tuple(view) for view in views_of(tta)]  # type: ignore[arg-type]
