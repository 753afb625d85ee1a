"""Trained networks for other programs: as ONNX, and as models of segmentation-models-pytorch."""

import copy
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.architectures import ARCHITECTURES, LIBRARY
from models.architectures.parts import Blueprint
from models.catalog.registry import backbone as described
from models.encoders.dilated import DILATED
from models.encoders.vision import smp
from models.encoders.vision_transformer import VisionTransformerEncoder
from models.network import Network

OPSET = 17
INPUT, OUTPUT = "images", "probabilities"
MODULES = ("onnx", "onnxruntime")
"""What writing and checking ONNX needs beside torch."""


class Answer(nn.Module):
    """Images (N, channels, S, S) in 0..1 to probabilities (N, outputs, S, S), the mean over networks."""

    def __init__(self, networks: Sequence[nn.Module], *, exclusive: bool) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.exclusive = exclusive

    def forward(self, images: Tensor) -> Tensor:
        """Return softmax of exclusive classes, the background first, else sigmoid."""
        answers = [network(images).float() for network in self.networks]
        shares = [answer.softmax(dim=1) if self.exclusive else answer.sigmoid() for answer in answers]
        return shares[0] if len(shares) == 1 else torch.stack(shares).mean(dim=0)


class PoolsAsProducts(TorchFunctionMode):
    """Averages adaptively by products with matrices: ONNX lacks it where sizes do not divide each other."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  (as torch has it)
        """Run every function but adaptive averages, which the library also calls interpolation by area."""
        given = kwargs or {}
        if function is F.adaptive_avg_pool2d:
            return pooled(args[0], args[1] if len(args) > 1 else given["output_size"])
        if function is F.interpolate and given.get("mode") == "area":
            return pooled(args[0], given["size"])
        return function(*args, **given)


def pooled(maps: Tensor, size: int | Sequence[int]) -> Tensor:
    """Return `adaptive_avg_pool2d` of maps (N, C, H, W) with fixed H and W."""
    height, width = (size, size) if isinstance(size, int) else size
    down, across = _averages(int(maps.shape[2]), height), _averages(int(maps.shape[3]), width)
    return down @ maps @ across.T


def _averages(inputs: int, outputs: int) -> Tensor:
    """Return (outputs, inputs): row i averages from floor(i * inputs / outputs) to ceil((i + 1) * inputs / outputs)."""
    rows = torch.zeros(outputs, inputs)
    for row in range(outputs):
        first, last = row * inputs // outputs, -(-(row + 1) * inputs // outputs)
        rows[row, first:last] = 1 / (last - first)
    return rows


def write_onnx(answer: Answer, path: Path, *, channels: int, size: int, metadata: Mapping[str, object]) -> None:
    """Write images of (N, channels, size, size), any N, to probabilities as ONNX, opset 17.

    `metadata` becomes metadata_props, texts as they are and all else as JSON. Raises `ValueError` for an
    operator that ONNX lacks.
    """
    import onnx

    try:
        _trace(_of_size(answer, size), torch.zeros(2, channels, size, size), path)
    except torch.onnx.errors.OnnxExporterError as error:
        what = " ".join(str(error).split())[:160]
        raise ValueError(f"a layer cannot be written as ONNX ({what}); allowed: .safetensors; write that") from error
    model = onnx.load(path)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _trace(answer: Answer, images: Tensor, path: Path) -> None:
    # The exporter by tracing: as exact as the newer one, ten times as fast, and it needs no onnxscript.
    with warnings.catch_warnings(), torch.no_grad(), PoolsAsProducts():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            answer, (images,), path, dynamo=False, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        )  # fmt: skip


def _of_size(answer: Answer, size: int) -> Answer:
    """Return a copy whose vision transformers hold position embeddings of this size: ONNX cannot resample them."""
    made = copy.deepcopy(answer).cpu().eval()
    for module in made.modules():
        if isinstance(module, VisionTransformerEncoder) and hasattr(module.model, "set_input_size"):
            module.model.set_input_size((size, size))
    return made


def largest_difference(answer: Answer, path: Path, images: Tensor) -> float:
    """Return how far onnxruntime's probabilities are from torch's at most, for images (N, channels, S, S) in 0..1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT], {INPUT: images.numpy()})
    with torch.no_grad():
        return float((answer.eval()(images) - torch.from_numpy(found)).abs().max())


def library_problem(blueprint: Blueprint) -> str | None:
    """Say in one line why a network is no model of segmentation-models-pytorch, None where it is one."""
    architecture = ARCHITECTURES[str(blueprint.architecture)]
    what = None
    if architecture.module != LIBRARY:
        what = f"architecture {blueprint.architecture} is"
    elif blueprint.upsampling == "transposed" and blueprint.architecture == "unet":
        what = "unet with upsampling: transposed is"
    elif blueprint.backbone in DILATED and architecture.output_stride < 32:
        what = f"{blueprint.backbone} dilated is"
    if what is None:
        return None
    return f"{what} none of segmentation-models-pytorch; allowed: .onnx or .safetensors; name such a file with -o"


def library_model(blueprint: Blueprint, network: Network) -> nn.Module:
    """Return the network as a model of segmentation-models-pytorch, for images that are normalised already.

    Raises `ValueError` where it is none.
    """
    problem = library_problem(blueprint)
    if problem:
        raise ValueError(problem)
    architecture = ARCHITECTURES[str(blueprint.architecture)]
    interpolates = blueprint.upsampling is not None and len(architecture.upsampling) > 1
    model: nn.Module = getattr(smp, architecture.model)(
        encoder_name=blueprint.backbone,
        encoder_weights=None,
        in_channels=blueprint.channels,
        classes=blueprint.outputs,
        **({"decoder_interpolation": blueprint.upsampling} if interpolates else {}),
        **described(blueprint.backbone).options,
    )
    for own, theirs in (("encoder", "encoder"), ("decoder", "decoder"), ("head", "segmentation_head")):
        # Layers that are never used were taken out of the network; the model has them with random weights.
        part = model.get_submodule(theirs)
        nn.Module.load_state_dict(part, {**part.state_dict(), **network.get_submodule(own).state_dict()})
    return model.eval()
