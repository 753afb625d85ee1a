"""Files of initial weights are checked by their header and bytes, and against the encoder that they are to fill."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from torch import Tensor

from models.architectures.parts import Blueprint
from models.build import build
from models.weights.file import non_finite, stored_tensors
from models.weights.fit import fit_problem, takes_one_image

RESNET = Blueprint(architecture="unet", backbone="resnet18", channels=1, outputs=1, shape=(64, 64))


def with_header(header: object, content: bytes = bytes(24)) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def tensor(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


SOUND = with_header({"a": tensor(0, 24, [2, 3])})
BROKEN = {
    "empty": b"",
    "cut in the header": SOUND[:12],
    "cut in the numbers": SOUND[:-4],
    "longer than its tensors": SOUND + b"x",
    "overlapping": with_header({"a": tensor(0, 16, [4]), "b": tensor(8, 24, [4])}),
    "with a gap": with_header({"a": tensor(0, 8, [2]), "b": tensor(16, 24, [2])}),
    "offsets beyond the end": with_header({"a": tensor(0, 400, [100])}),
    "shape of another size": with_header({"a": tensor(0, 24, [7])}),
    "negative shape": with_header({"a": tensor(0, 24, [-6])}),
    "unknown data type": with_header({"a": tensor(0, 24, [6], "X9")}),
    "a list": with_header(["a"]),
    "no JSON": struct.pack("<Q", 8) + b"{{{{{{{{",
    "a header without end": struct.pack("<Q", 2**62) + bytes(64),
    "a picture": b"\x89PNG\r\n" + bytes(100),
    "null as header": with_header(None),
    "a nested header": struct.pack("<Q", 50_000) + b'{"a":' * 10_000,
    "offsets swapped": with_header({"a": tensor(24, 0, [6])}),
    "negative offsets": with_header({"a": tensor(-24, 0, [6])}),
    "overflowing shape": with_header({"a": tensor(0, 24, [2**62, 2**62])}),
    "metadata of numbers": with_header({"__metadata__": {"a": 5}, "a": tensor(0, 24, [6])}),
    "a shortened length": struct.pack("<Q", int.from_bytes(SOUND[:8], "little") - 1) + SOUND[8:],
    "zeros": bytes(5_000),
    "a pickle": pickle.dumps({"a": 1}),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_file_is_refused_in_a_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.safetensors cannot be read .*; allowed: a complete") as refused:
        stored_tensors(file)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "what"), [(".", "not a regular file"), ("pipe", "not a regular file"),
                                            ("absent", "no such file"), ("dangling", "no such file")])  # fmt: skip
def test_what_is_no_file_is_refused_unopened(name: str, what: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("absent")
    with pytest.raises(ValueError, match=rf"cannot be read \({what}\)"):
        stored_tensors(tmp_path / name)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_number_that_is_not_finite_is_found_in_every_data_type(kind: torch.dtype, value: float, tmp_path: Path) -> None:
    spoiled = torch.ones(5, dtype=kind)
    spoiled[3] = value
    save_torch({"a": torch.full((7,), -60_000.0, dtype=kind), "b": spoiled}, tmp_path / "x")
    assert non_finite(tmp_path / "x", stored_tensors(tmp_path / "x")) == "b"


@pytest.mark.parametrize(("value", "found"), [(1e300, "a"), (-3.5e38, "a"), (3.4028235e38, None)])
def test_float64_that_is_infinite_in_float32_is_found(value: float, found: str | None, tmp_path: Path) -> None:
    save_file({"a": np.array([0.0, value])}, tmp_path / "x")
    with np.errstate(over="ignore"):
        assert np.isinf(np.float32(value)) == (found is not None)
    assert non_finite(tmp_path / "x", stored_tensors(tmp_path / "x")) == found


def test_finite_numbers_and_counters_are_sound(tmp_path: Path) -> None:
    save_file({"a": np.array([-1e38, 0.0, 1e-40], np.float32), "n": np.array([2**62, -1])}, tmp_path / "x")
    assert non_finite(tmp_path / "x", stored_tensors(tmp_path / "x")) is None


def encoder() -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in build(RESNET).encoder.state_dict().items()}


MISFITS: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], str]] = {
    "foreign names": (lambda own: {f"x.{name}": value for name, value in own.items()}, "120 missing (conv1.weight"),
    "other shape": (lambda own: own | {"conv1.weight": torch.zeros(64, 3, 7, 7)},
                    "1 of another shape (conv1.weight (64, 3, 7, 7) instead of (64, 1, 7, 7))"),
    "integers": (lambda own: {name: value.to(torch.int8) for name, value in own.items()}, "100 of another data type"),
    "one too many": (lambda own: own | {"more": torch.zeros(1)}, "1 unknown (more (1,))"),
    "endless name": (lambda own: own | {"n" * 9_000: torch.zeros(1)}, f"1 unknown ({'n' * 100}...)"),
    "prefixes of other programs": (lambda own: {f"module.{name}": value for name, value in own.items()}, "120 unknown"),
    "transposed": (lambda own: own | {"conv1.weight": torch.zeros(1, 64, 7, 7)}, "1 of another shape"),
    "no counters": (lambda own: {name: value for name, value in own.items() if "tracked" not in name}, "20 missing"),
    "nothing": (lambda own: {}, "120 missing"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), MISFITS.values(), ids=MISFITS)
def test_tensors_that_do_not_fit_are_counted_and_named(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str, tmp_path: Path
) -> None:
    save_torch(change(encoder()), tmp_path / "x")
    problem = fit_problem(RESNET, stored_tensors(tmp_path / "x"))
    assert problem is not None
    assert message in problem
    assert "\n" not in problem


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_weights_of_the_encoder_fit_in_half_precision_too(prefix: str, tmp_path: Path) -> None:
    tensors = {f"{prefix}{name}": value.half() if value.is_floating_point() else value
               for name, value in encoder().items()}  # fmt: skip
    save_torch(tensors, tmp_path / "x")
    assert fit_problem(RESNET, stored_tensors(tmp_path / "x")) is None


@pytest.mark.parametrize(
    ("backbone", "size", "enough"),
    [("resnet18", 32, False), ("resnet18", 64, True), ("tu-resnest14d", 128, False), ("tu-convnext_atto", 32, True)],
)
def test_one_image_is_enough_where_nothing_is_normalised_over_a_single_value(
    backbone: str, size: int, enough: bool
) -> None:
    single = Blueprint(architecture=None, backbone=backbone, channels=1, outputs=1, shape=(size, size))
    assert takes_one_image(single) == enough


def test_one_image_is_enough_for_a_frozen_encoder() -> None:
    single = Blueprint(architecture=None, backbone="resnet18", channels=1, outputs=1, shape=(32, 32))
    assert takes_one_image(single, ("encoder",))
