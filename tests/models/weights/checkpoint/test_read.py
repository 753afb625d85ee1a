"""Checkpoints of safetensors and torch are read without running code, in any wrapper."""

import contextlib
import json
import os
import pickle
import struct
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.weights.checkpoint.read import read_checkpoint


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
    "an image": b"\x89PNG\r\n" + bytes(100),
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
def test_a_malformed_file_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.safetensors"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.safetensors cannot be read .*; allowed: a complete") as refused:
        read_checkpoint(file)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "message"), [(".", "not a regular file"), ("pipe", "not a regular file"),
                                            ("absent", "no such file"), ("dangling", "no such file")])  # fmt: skip
def test_paths_that_are_not_files_are_refused_unopened(name: str, message: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("absent")
    with pytest.raises(ValueError, match=rf"cannot be read \({message}\)"):
        read_checkpoint(tmp_path / name)


STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "bn.num_batches_tracked": torch.tensor(7)}
WRAPPED: dict[str, tuple[object, tuple[str, ...]]] = {
    "bare": (STATE, ()),
    "ordered": (OrderedDict(STATE), ()),
    "PyTorch's examples": ({"epoch": 3, "best_acc1": torch.tensor(71.0), "state_dict": STATE, "optimizer": {"lr": 0.1}},
                           ("state_dict",)),
    "MAE": ({"model": STATE, "epoch": 3, "args": Namespace(lr=0.1), "scaler": {}}, ("model",)),
    "DINO": ({"student": {"x": torch.zeros(1)}, "teacher": STATE, "args": Namespace(arch="vit_small")}, ("teacher",)),
    "timm": ({"state_dict": {"x": torch.zeros(1)}, "state_dict_ema": STATE, "args": Namespace()}, ("state_dict_ema",)),
    "numbers of numpy": ({"model_state_dict": STATE, "best": np.float64(0.5)}, ("model_state_dict",)),
    "nested": ({"state_dict": {"model": STATE}}, ("state_dict", "model")),
    "parameters": ({"net": {name: nn.Parameter(value, requires_grad=False) for name, value in STATE.items()}},
                   ("net",)),
}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(("content", "wrapper"), WRAPPED.values(), ids=WRAPPED)
def test_tensors_of_torch_files_are_located_in_their_wrapper(
    content: object, wrapper: tuple[str, ...], zipped: bool, tmp_path: Path
) -> None:
    file = tmp_path / "x.pth.tar"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(file)
    assert (checkpoint.kind, checkpoint.wrapper) == ("torch", wrapper)
    assert checkpoint.tensors.keys() == STATE.keys()
    assert all(torch.equal(value, checkpoint.tensors[name]) for name, value in STATE.items())


def test_objects_of_any_class_may_be_beside_the_tensors(tmp_path: Path) -> None:
    torch.save({"model": STATE, "at": Path("x"), "schedule": Fraction(1, 3)}, tmp_path / "x")
    assert read_checkpoint(tmp_path / "x").tensors.keys() == STATE.keys()


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_file_is_not_run(zipped: bool, tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "more": Trap(tmp_path / "trap")}, tmp_path / "x",
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    with contextlib.suppress(ValueError):
        read_checkpoint(tmp_path / "x")
    assert not (tmp_path / "trap").exists()
    torch.load(tmp_path / "x", weights_only=False)
    assert (tmp_path / "trap").exists()


REFUSED: dict[str, tuple[object, str]] = {
    "a pickled model": (nn.Linear(2, 2), "holds a pickled object, not tensors; allowed: .*state_dict"),
    "no tensors": ({"epoch": 3, "args": Namespace()}, "has no tensors but epoch, args; allowed: "),
    "a list": ([torch.zeros(1)], "has no tensors; allowed: "),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_torch_files_without_tensors_are_refused(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=message) as refused:
        read_checkpoint(tmp_path / "x.pth")
    assert "\n" not in str(refused.value)


def test_a_dictionary_that_contains_itself_is_read(tmp_path: Path) -> None:
    content: dict[str, object] = {"model": STATE}
    content["state_dict"] = content
    torch.save(content, tmp_path / "x")
    assert read_checkpoint(tmp_path / "x").tensors.keys() == STATE.keys()


def test_a_truncated_torch_file_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    for length in (10, len(content) // 2, len(content) - 30):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cannot be read .*; allowed: a complete") as refused:
            read_checkpoint(tmp_path / "cut")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_torch_file_truncated_anywhere_is_refused_in_one_line(zipped: bool, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(400), "b": torch.zeros(20)}, tmp_path / "x", _use_new_zipfile_serialization=zipped)
    content = (tmp_path / "x").read_bytes()
    for length in range(0, len(content), 11):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut cannot be read .*; allowed: ") as refused:
            read_checkpoint(tmp_path / "cut")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(("protocol", "is_read"), [(2, True), (3, True), (4, False), (5, False)])
def test_torch_files_of_every_pickle_protocol_are_recognised(
    protocol: int, is_read: bool, zipped: bool, tmp_path: Path
) -> None:
    torch.save(STATE, tmp_path / "x", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    if is_read:
        assert read_checkpoint(tmp_path / "x").kind == "torch"
    else:  # torch reads them only with code from the file
        with pytest.raises(ValueError, match=r"cannot be read without running code .*; save it again with torch\.save"):
            read_checkpoint(tmp_path / "x")


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_safetensors_header_whose_length_looks_like_a_pickle_is_recognised(length: int, tmp_path: Path) -> None:
    header = json.dumps({"a": tensor(0, 24, [6])}).encode().ljust(length)
    (tmp_path / "x").write_bytes(struct.pack("<Q", length) + header + bytes(24))
    assert (tmp_path / "x").read_bytes()[:2] == bytes((0x80, length >> 8))
    checkpoint = read_checkpoint(tmp_path / "x")
    assert (checkpoint.kind, checkpoint.tensors["a"].shape) == ("safetensors", (6,))
