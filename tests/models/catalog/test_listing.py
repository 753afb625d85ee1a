"""The searchable list of backbones and weights."""

import json
import subprocess
import sys

import pytest

from models.catalog.listing import architectures_text, entries
from models.catalog.registry import backbones, problem


def test_all_backbones_and_weights_are_listed() -> None:
    listed = list(entries())
    assert [entry.name for entry in listed] == list(backbones())
    assert sum(len(entry.weights) for entry in listed) > 2500
    assert all(entry.parameters > 1000 for entry in listed)


@pytest.mark.parametrize(
    "name",
    ["resnet18", "mit_b0", "vgg16_bn", "tu-vit_tiny_patch16_224", "tu-hrnet_w18_small", "tu-deepseek_vit_412m"],
)
def test_architectures_are_those_accepted_by_a_plan(name: str) -> None:
    (entry,) = (entry for entry in entries(name) if entry.name == name)
    size = entry.size or 256
    from models.architectures import ARCHITECTURES

    accepted = tuple(arch for arch in ARCHITECTURES if problem(arch, name, shape=(size, size)) is None)
    assert entry.architectures == accepted


def test_search_matches_names_weights_and_repositories() -> None:
    of_name = list(entries("VIT_SMALL dinov3"))
    assert of_name
    assert all("vit_small" in entry.name and "dinov3" in entry.name for entry in of_name)
    of_weights = list(entries("convnext dinov3_lvd1689m"))
    assert {weights.name for entry in of_weights for weights in entry.weights} == {"dinov3_lvd1689m"}
    assert all(weights.licence for entry in of_weights for weights in entry.weights)
    assert list(entries("resnet18 zzz")) == []
    assert [entry for entry in entries("tu-test_vit", of_weights=True) if not entry.weights] == []


@pytest.mark.parametrize(("missing", "text"), [
    ((), "all"), (("dpt",), "all but dpt"), (("dpt", "unetplusplus"), "all but unetplusplus, dpt"),
])  # fmt: skip
def test_architectures_are_shortened(missing: tuple[str, ...], text: str) -> None:
    from models.architectures import ARCHITECTURES

    named = [name for name, row in ARCHITECTURES.items() if not row.own_encoder]
    assert architectures_text(tuple(name for name in named if name not in missing)) == text
    assert architectures_text(("dpt", "linear")) == "dpt, linear"
    assert architectures_text((*named, "segnet")) == "all, segnet"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "study", "backbones", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_lists_searches_and_refuses() -> None:
    listed = run("--search", "resnet18").stdout.splitlines()
    assert listed[0].split() == ["backbone", "parameters", "strides", "size", "weights", "architectures"]
    assert listed[1].split()[:3] == ["resnet18", "11.2", "M"]
    weights = run("--search", "dinov2 vit_small", "--weights").stdout.splitlines()
    assert any("timm/vit_small_patch14_dinov2.lvd142m" in line and "apache-2.0" in line for line in weights)
    records = json.loads(run("--search", "vit_small dinov2", "--json").stdout)
    assert {"name", "parameters", "strides", "size", "architectures", "weights"} <= records[0].keys()
    refused = run("--search", "zzz")
    assert refused.returncode == 2
    assert refused.stderr.startswith("study backbones: --search: is zzz; allowed: ")
    without = run("--weights", "--search", "tu-beit3_giant_patch14_224")
    assert without.returncode == 2
    assert "no published weights; allowed: with weights; leave out --weights" in without.stderr


def test_the_list_needs_no_torch() -> None:
    code = "import sys; from models.catalog.listing import entries; list(entries()); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
