"""Export of trained networks to ONNX and to models of segmentation-models-pytorch."""

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
from models.catalog.registry import backbone as describe_backbone
from models.encoders.dilated import DILATED
from models.encoders.patches import whole_patches
from models.encoders.vision import smp
from models.encoders.vision_transformer import VisionTransformerEncoder
from models.network import Network

OPSET = 17
INPUT, OUTPUT = "images", "probabilities"
MODULES = ("onnx", "onnxruntime")
"""Modules required to write and check ONNX files."""


class Ensemble(nn.Module):
    """Maps images (N, channels, H, W) in 0..1 to mean probabilities (N, outputs, H, W) of several networks."""

    def __init__(self, networks: Sequence[nn.Module], *, exclusive: bool) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.exclusive = exclusive

    def forward(self, images: Tensor) -> Tensor:
        """Return softmax of exclusive classes, the background first, else sigmoid."""
        outputs = [network(images).float() for network in self.networks]
        probabilities = [output.softmax(dim=1) if self.exclusive else output.sigmoid() for output in outputs]
        return probabilities[0] if len(probabilities) == 1 else torch.stack(probabilities).mean(dim=0)


class PoolingAsMatmul(TorchFunctionMode):
    """Replaces adaptive average pooling by matrix products, as ONNX requires divisible sizes."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  (as torch has it)
        """Call `function`, replacing adaptive average pooling and its equivalent, interpolation in mode "area"."""
        arguments = kwargs or {}
        if function is F.adaptive_avg_pool2d:
            return adaptive_average(args[0], args[1] if len(args) > 1 else arguments["output_size"])
        if function is F.interpolate and arguments.get("mode") == "area":
            return adaptive_average(args[0], arguments["size"])
        return function(*args, **arguments)


def adaptive_average(maps: Tensor, size: int | Sequence[int]) -> Tensor:
    """Return `adaptive_avg_pool2d` of maps (N, C, H, W) with fixed H and W."""
    height, width = (size, size) if isinstance(size, int) else size
    down, across = _averaging_matrix(int(maps.shape[2]), height), _averaging_matrix(int(maps.shape[3]), width)
    return down @ maps @ across.T


def _averaging_matrix(inputs: int, outputs: int) -> Tensor:
    """Return (outputs, inputs): row i averages from floor(i * inputs / outputs) to ceil((i + 1) * inputs / outputs)."""
    rows = torch.zeros(outputs, inputs)
    for row in range(outputs):
        first, last = row * inputs // outputs, -(-(row + 1) * inputs // outputs)
        rows[row, first:last] = 1 / (last - first)
    return rows


def write_onnx(
    ensemble: Ensemble, path: Path, *, channels: int, shape: tuple[int, int], metadata: Mapping[str, object]
) -> None:
    """Write an ONNX model (opset 17) from images (N, channels, *shape), any N, to probabilities.

    `metadata` is stored in metadata_props, strings unchanged and other values as JSON. Raises `ValueError` for
    operators that ONNX lacks.
    """
    import onnx

    try:
        _trace(_for_shape(ensemble, shape), torch.zeros(2, channels, *shape), path)
    except torch.onnx.errors.OnnxExporterError as error:
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"a layer cannot be written as ONNX ({reason}); allowed: .safetensors; write that") from error
    model = onnx.load(path)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _trace(ensemble: Ensemble, images: Tensor, path: Path) -> None:
    # The tracing exporter is as exact as the newer one, ten times as fast, and does not need onnxscript.
    with warnings.catch_warnings(), torch.no_grad(), PoolingAsMatmul():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            ensemble, (images,), path, dynamo=False, opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        )  # fmt: skip


def _for_shape(ensemble: Ensemble, shape: tuple[int, int]) -> Ensemble:
    """Return a copy with position embeddings of vision transformers resampled to this shape, which ONNX cannot do."""
    resized = copy.deepcopy(ensemble).cpu().eval()
    for module in resized.modules():
        if isinstance(module, VisionTransformerEncoder) and hasattr(module.model, "set_input_size"):
            height, width = (whole_patches(side, module.output_stride) for side in shape)
            module.model.set_input_size((height, width))
    return resized


def largest_difference(ensemble: Ensemble, path: Path, images: Tensor) -> float:
    """Return the maximum difference between onnxruntime and torch for images (N, channels, H, W) in 0..1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run([OUTPUT], {INPUT: images.numpy()})
    with torch.no_grad():
        return float((ensemble.eval()(images) - torch.from_numpy(probabilities)).abs().max())


def library_problem(blueprint: Blueprint) -> str | None:
    """Return an error message if a network is not a model of segmentation-models-pytorch, else None."""
    architecture = ARCHITECTURES[str(blueprint.architecture)]
    subject = None
    if architecture.module != LIBRARY:
        subject = f"architecture {blueprint.architecture} is"
    elif blueprint.upsampling == "transposed" and blueprint.architecture == "unet":
        subject = "unet with upsampling: transposed is"
    elif blueprint.backbone in DILATED and architecture.output_stride < 32:
        subject = f"{blueprint.backbone} dilated is"
    elif blueprint.backbone != "own" and describe_backbone(blueprint.backbone).features == "plain":
        subject = f"{blueprint.architecture} over the plain vision transformer {blueprint.backbone} is"
    if subject is None:
        return None
    return f"{subject} none of segmentation-models-pytorch; allowed: .onnx or .safetensors; name such a file with -o"


def library_arguments(blueprint: Blueprint) -> dict[str, Any]:
    """Return the arguments of the class of segmentation-models-pytorch for a network that it has."""
    architecture = ARCHITECTURES[str(blueprint.architecture)]
    interpolates = blueprint.upsampling is not None and len(architecture.upsampling) > 1
    return {
        "encoder_name": blueprint.backbone,
        "encoder_weights": None,
        "in_channels": blueprint.channels,
        "classes": blueprint.outputs,
        **({"decoder_interpolation": blueprint.upsampling} if interpolates else {}),
        **describe_backbone(blueprint.backbone).options,
    }


def library_description(blueprint: Blueprint) -> dict[str, Any] | None:
    """Return class and arguments in segmentation-models-pytorch; None for a network that it does not have."""
    if library_problem(blueprint):
        return None
    model = ARCHITECTURES[str(blueprint.architecture)].model
    return {"model": model, "arguments": library_arguments(blueprint)}


def library_model(blueprint: Blueprint, network: Network) -> nn.Module:
    """Return the network as a model of segmentation-models-pytorch, for normalised images.

    Raises `ValueError` if the library has no such model.
    """
    problem = library_problem(blueprint)
    if problem:
        raise ValueError(problem)
    architecture = ARCHITECTURES[str(blueprint.architecture)]
    model: nn.Module = getattr(smp, architecture.model)(**library_arguments(blueprint))
    for name, library_name in (("encoder", "encoder"), ("decoder", "decoder"), ("head", "segmentation_head")):
        # Unused layers were removed from the network; in the model they keep random weights.
        part = model.get_submodule(library_name)
        nn.Module.load_state_dict(part, {**part.state_dict(), **network.get_submodule(name).state_dict()})
    return model.eval()
