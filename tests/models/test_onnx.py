"""Networks in other programs: onnxruntime and segmentation-models-pytorch give the outputs of torch."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.architectures import ARCHITECTURES, LIBRARY
from models.build import Blueprint, build
from models.encoders.vision import smp
from models.export import Ensemble, adaptive_average, largest_difference, library_model, library_problem, write_onnx
from models.network import Network

CLOSE = 1e-4
SMALL = {"pyramid": "tu-lcnet_050", "plain": "tu-test_vit", "any": "tu-lcnet_050"}
SIZES = {"plain": (96, 160)}
"""Position embeddings of the transformer have a size of 160 pixels and are interpolated at other sizes."""


def blueprint(architecture: str, *, channels: int = 1, outputs: int = 3, **settings: object) -> Blueprint:
    row = ARCHITECTURES[architecture]
    backbone = "own" if row.own_encoder else SMALL[row.features]
    defaults = {"architecture": architecture, "backbone": backbone, "channels": channels, "outputs": outputs}
    return Blueprint(**{**defaults, **settings})  # type: ignore[arg-type]


def trained(plan: Blueprint, seed: int = 0) -> Network:
    """Return a network in evaluation mode whose normalisation layers differ from their initial state."""
    torch.manual_seed(seed)
    network = build(plan)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return network.eval()


def random_images(number: int, channels: int, size: int) -> Tensor:
    return torch.rand(number, channels, size, size, generator=torch.Generator().manual_seed(1))


def sizes(architecture: str) -> tuple[int, int]:
    row = ARCHITECTURES[architecture]
    smallest = max(64, row.smallest)
    return SIZES.get(row.features, (smallest, smallest + row.divisor))


CASES = [(name, size) for name in ARCHITECTURES for size in dict.fromkeys(sizes(name))]
CASES += [(name, 70) for name, row in ARCHITECTURES.items() if row.own_encoder]  # padded by the network


@pytest.fixture(autouse=True)
def _onnx() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")


@pytest.mark.parametrize(("architecture", "size"), CASES)
def test_onnx_output_equals_torch(architecture: str, size: int, tmp_path: Path) -> None:
    ensemble = Ensemble([trained(blueprint(architecture))], exclusive=True).eval()
    write_onnx(ensemble, tmp_path / "a.onnx", channels=1, shape=(size, size), metadata={})
    assert largest_difference(ensemble, tmp_path / "a.onnx", random_images(2, 1, size)) < CLOSE


@pytest.mark.parametrize(("architecture", "backbone"), [
    ("unet", "tu-test_vit"), ("deeplabv3plus", "tu-test_vit"), ("linear", "tu-test_vit"), ("mlp", "tu-test_vit"),
    ("fpn", "tu-vit_small_patch14_dinov2"),
])  # fmt: skip
def test_onnx_output_of_plain_transformers_equals_torch(architecture: str, backbone: str, tmp_path: Path) -> None:
    ensemble = Ensemble([trained(blueprint(architecture, backbone=backbone))], exclusive=True).eval()
    write_onnx(ensemble, tmp_path / "a.onnx", channels=1, shape=(96, 64), metadata={})
    images = torch.rand(2, 1, 96, 64, generator=torch.Generator().manual_seed(1))
    assert largest_difference(ensemble, tmp_path / "a.onnx", images) < CLOSE


@pytest.mark.parametrize("number", [1, 3])
def test_onnx_accepts_batches_of_any_size(number: int, tmp_path: Path) -> None:
    ensemble = Ensemble([trained(blueprint("unet", channels=3))], exclusive=False).eval()
    write_onnx(ensemble, tmp_path / "a.onnx", channels=3, shape=(64, 64), metadata={})
    assert largest_difference(ensemble, tmp_path / "a.onnx", random_images(number, 3, 64)) < CLOSE


def test_a_difference_to_torch_is_detected(tmp_path: Path) -> None:
    first, second = (Ensemble([trained(blueprint("fpn"), seed)], exclusive=True).eval() for seed in (0, 1))
    write_onnx(first, tmp_path / "a.onnx", channels=1, shape=(64, 64), metadata={})
    assert largest_difference(second, tmp_path / "a.onnx", random_images(1, 1, 64)) > 100 * CLOSE


def test_several_networks_return_their_mean_probability(tmp_path: Path) -> None:
    networks = [trained(blueprint("fpn"), seed) for seed in (0, 1)]
    ensemble = Ensemble(networks, exclusive=True).eval()
    images = random_images(2, 1, 64)
    with torch.no_grad():
        mean = (networks[0](images).softmax(dim=1) + networks[1](images).softmax(dim=1)) / 2
        torch.testing.assert_close(ensemble(images), mean)
    write_onnx(ensemble, tmp_path / "a.onnx", channels=1, shape=(64, 64), metadata={})
    assert largest_difference(ensemble, tmp_path / "a.onnx", images) < CLOSE


def test_metadata_are_text_or_json(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    ensemble = Ensemble([trained(blueprint("fpn"))], exclusive=True).eval()
    write_onnx(
        ensemble,
        tmp_path / "a.onnx",
        channels=1,
        shape=(64, 64),
        metadata={"classes": ["Ä", "b"], "digest": "ab", "size": 64},
    )
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert (json.loads(metadata["classes"]), metadata["digest"], metadata["size"]) == (["Ä", "b"], "ab", "64")


@pytest.mark.parametrize(("inputs", "outputs"), [((7, 5), (3, 2)), ((2, 2), (6, 6)), ((8, 8), (1, 1))])
def test_a_matrix_product_pools_like_adaptive_averages(inputs: tuple[int, int], outputs: tuple[int, int]) -> None:
    maps = torch.rand(2, 3, *inputs)
    torch.testing.assert_close(adaptive_average(maps, outputs), nn.AdaptiveAvgPool2d(outputs)(maps))


@pytest.mark.parametrize("architecture", [name for name, row in ARCHITECTURES.items() if row.module == LIBRARY])
def test_the_librarys_own_loader_gives_equal_logits(architecture: str, tmp_path: Path) -> None:
    plan = blueprint(architecture)
    network = trained(plan)
    library_model(plan, network).save_pretrained(tmp_path / "model")  # type: ignore[operator]
    # In double precision: memory formats add in different orders, visible in the last digits of float32.
    loaded, network = smp.from_pretrained(tmp_path / "model").eval().double(), network.double()
    images = random_images(2, 1, sizes(architecture)[0]).double()
    with torch.no_grad():
        torch.testing.assert_close(loaded((images - network.mean) / network.std), network(images))


@pytest.mark.parametrize("backbone", ["vgg11", "vgg16_bn"])
def test_a_backbone_of_this_package_loads_as_the_librarys(backbone: str, tmp_path: Path) -> None:
    plan = blueprint("unet", backbone=backbone, upsampling="bilinear")
    network = trained(plan)
    library_model(plan, network).save_pretrained(tmp_path / "model")  # type: ignore[operator]
    assert json.loads((tmp_path / "model" / "config.json").read_text())["encoder_name"] == backbone
    loaded = smp.from_pretrained(tmp_path / "model").eval()
    images = random_images(1, 1, 64)
    with torch.no_grad():
        torch.testing.assert_close(loaded((images - network.mean) / network.std), network(images))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (blueprint("xnet"), "architecture xnet is none of segmentation-models-pytorch; allowed: .onnx or .safetensors"),
        (blueprint("unet", upsampling="transposed"), "unet with upsampling: transposed is none of"),
        (blueprint("deeplabv3plus", backbone="vgg11"), "vgg11 dilated is none of"),
        (blueprint("unet", backbone="tu-test_vit"), "unet over the plain vision transformer tu-test_vit is none of"),
        (blueprint("linear", backbone="tu-test_vit"), "architecture linear is none of"),
    ],
)
def test_networks_without_a_model_in_the_library_are_refused(plan: Blueprint, message: str) -> None:
    assert message in str(library_problem(plan))
