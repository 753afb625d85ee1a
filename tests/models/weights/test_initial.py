import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.build import Blueprint, build
from models.catalog.hub import upstream_content
from models.catalog.published import PublishedWeights
from models.catalog.registry import published_weights
from models.encoders.vision import smp, timm
from models.network import Network
from models.task_settings.distillation import TeacherNetworkSettings
from models.tasks.feature_distillation import teacher_blueprint
from models.weights.initial import WeightsUnavailable, carry, fetch_weights, load_file, load_pretrained
from tests.support.hub import Hub, local_hub


def make_network(architecture: str | None, backbone: str, channels: int = 1) -> Network:
    return build(Blueprint(architecture=architecture, backbone=backbone, channels=channels, outputs=1))


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as stored in files."""
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def publish(folder: Path, backbone: str, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Write a file into a hub cache as a download does."""
    weights = published_weights(backbone, name)
    repository, revision = weights.repository, weights.revision
    root = folder / f"models--{repository.replace('/', '--')}"
    commit = revision if len(revision) == 40 else "0" * 40
    if commit != revision:
        (root / "refs").mkdir(parents=True)
        (root / "refs" / revision).write_text(commit)
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    save_file(plain(tensors), snapshot / "model.safetensors", metadata={"format": "pt"})
    (snapshot / "config.json").write_text(json.dumps({"mean": [0.5] * 3}))


@pytest.fixture(scope="module")
def published_resnet18() -> dict[str, Tensor]:
    """The publisher's file: the encoder's names, and the classifier's."""
    encoder = smp.encoders.get_encoder("resnet18", weights=None)
    tensors = {name: torch.rand_like(tensor.float()) for name, tensor in encoder.state_dict().items()}
    return tensors | {"fc.weight": torch.rand(1000, 512), "fc.bias": torch.rand(1000)}


@pytest.mark.parametrize("architecture", ["unet", "deeplabv3", None])
def test_cached_weights_fill_the_encoder_of_any_architecture(
    tmp_path: Path, published_resnet18: dict[str, Tensor], architecture: str | None
) -> None:
    publish(tmp_path, "resnet18", "imagenet", published_resnet18)
    network = make_network(architecture, "resnet18", channels=3)
    load_pretrained(network, "resnet18", "imagenet", tmp_path)
    for name, tensor in network.encoder.state_dict().items():
        torch.testing.assert_close(tensor, published_resnet18[name].to(tensor.dtype))


def test_published_weights_of_vgg16_fill_segnets_encoder(tmp_path: Path) -> None:
    network = make_network("segnet", "vgg16_bn", channels=3)
    tensors = {name: torch.rand_like(tensor.float()) for name, tensor in network.encoder.state_dict().items()}
    publish(tmp_path, "vgg16_bn", "imagenet", tensors | {"classifier.6.bias": torch.rand(1000)})
    load_pretrained(network, "vgg16_bn", "imagenet", tmp_path)
    for name, tensor in network.encoder.state_dict().items():
        torch.testing.assert_close(tensor, tensors[name].to(tensor.dtype))


def test_one_channel_has_the_sum_over_the_published_three(
    tmp_path: Path, published_resnet18: dict[str, Tensor]
) -> None:
    publish(tmp_path, "resnet18", "imagenet", published_resnet18)
    network = make_network("unet", "resnet18")
    load_pretrained(network, "resnet18", "imagenet", tmp_path)
    expected = published_resnet18["conv1.weight"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(network.encoder.state_dict()["conv1.weight"], expected)


def test_pspnet_loads_the_published_weights_of_its_layers(
    tmp_path: Path, published_resnet18: dict[str, Tensor]
) -> None:
    publish(tmp_path, "resnet18", "imagenet", published_resnet18)
    network = make_network("pspnet", "resnet18")
    load_pretrained(network, "resnet18", "imagenet", tmp_path)
    torch.testing.assert_close(
        network.encoder.state_dict()["layer2.1.bn2.weight"], published_resnet18["layer2.1.bn2.weight"]
    )


@pytest.mark.parametrize(("architecture", "backbone"), [("unet", "tu-test_resnet"), ("dpt", "tu-test_vit")])
def test_timm_weights_fill_the_encoder_from_the_cache(tmp_path: Path, architecture: str, backbone: str) -> None:
    torch.manual_seed(1)
    library_model = timm.create_model(backbone.removeprefix("tu-"))
    torch.nn.init.normal_(library_model.get_classifier().weight)
    publish(tmp_path, backbone, "imagenet", library_model.state_dict())
    network = make_network(architecture, backbone, channels=3)
    load_pretrained(network, backbone, "imagenet", tmp_path)
    published = {(tuple(t.shape), float(t.double().sum())) for t in library_model.state_dict().values()}
    loaded = {(tuple(t.shape), float(t.double().sum())) for t in network.encoder.state_dict().values()}
    assert loaded <= published


@pytest.mark.parametrize("source", ["published", "file"])
def test_the_final_normalisation_of_a_teacher_is_loaded(source: str, tmp_path: Path) -> None:
    reference = timm.create_model("test_vit")
    torch.nn.init.normal_(reference.norm.weight)
    torch.nn.init.normal_(reference.norm.bias)
    teacher = build(teacher_blueprint(TeacherNetworkSettings(backbone="tu-test_vit"), channels=1))
    if source == "published":
        publish(tmp_path, "tu-test_vit", "imagenet", reference.state_dict())
        load_pretrained(teacher, "tu-test_vit", "imagenet", tmp_path)
    else:
        save_file(plain(reference.state_dict()), tmp_path / "teacher.safetensors")
        load_file(teacher, "tu-test_vit", tmp_path / "teacher.safetensors")
    loaded = teacher.encoder.state_dict()
    for name, tensor in reference.norm.state_dict().items():
        assert torch.equal(loaded[f"model.norm.{name}"], tensor)


def test_loading_does_not_change_the_random_state(tmp_path: Path, published_resnet18: dict[str, Tensor]) -> None:
    publish(tmp_path, "resnet18", "imagenet", published_resnet18)
    network = make_network(None, "resnet18")
    before = torch.get_rng_state()
    load_pretrained(network, "resnet18", "imagenet", tmp_path)
    assert torch.equal(before, torch.get_rng_state())


def test_a_published_file_without_a_tensor_is_refused(tmp_path: Path, published_resnet18: dict[str, Tensor]) -> None:
    broken = {name: tensor for name, tensor in published_resnet18.items() if name != "layer1.0.conv1.weight"}
    publish(tmp_path, "resnet18", "imagenet", broken)
    with pytest.raises(RuntimeError, match=r"layer1\.0\.conv1\.weight"):
        load_pretrained(make_network(None, "resnet18"), "resnet18", "imagenet", tmp_path)


def test_weights_neither_cached_nor_reachable_are_refused_after_seconds_of_retries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(time, "sleep", waits.append)
    network = make_network(None, "resnet18")
    with pytest.raises(WeightsUnavailable, match=r"resnet18\.imagenet@.* neither cached nor reachable.*hf download"):
        load_pretrained(network, "resnet18", "imagenet", tmp_path)
    assert sum(waits) < 10


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on this machine."""
    with local_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


MOVING = PublishedWeights(repository="lab/encoder", revision="main")


def test_a_content_is_downloaded_at_its_commit_after_the_branch_has_moved(hub: Hub, tmp_path: Path) -> None:
    hub.commit("lab/encoder", b"first")
    first = upstream_content(MOVING)
    hub.commit("lab/encoder", b"second")
    assert fetch_weights(MOVING, first, tmp_path).read_bytes() == b"first"
    assert fetch_weights(MOVING, upstream_content(MOVING), tmp_path).read_bytes() == b"second"


def test_a_content_no_longer_on_the_hub_is_read_from_the_cache_only(hub: Hub, tmp_path: Path) -> None:
    hub.commit("lab/encoder", b"first")
    first = upstream_content(MOVING)
    assert first is not None
    fetch_weights(MOVING, first, tmp_path / "full")
    hub.repositories.clear()
    hub.commit("lab/encoder", b"second")
    assert fetch_weights(MOVING, first, tmp_path / "full").read_bytes() == b"first"
    with pytest.raises(WeightsUnavailable, match=f"has another content; allowed: .*--revision {first.commit}"):
        fetch_weights(MOVING, first, tmp_path / "empty")


def test_an_altered_file_of_the_cache_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.commit("lab/encoder", b"first")
    content = upstream_content(MOVING)
    file = fetch_weights(MOVING, content, tmp_path)
    file.resolve().write_bytes(b"altered")
    for expected in (content, None):
        with pytest.raises(ValueError, match=r"was altered; allowed: .*SHA-256.*; remove it"):
            fetch_weights(MOVING, expected, tmp_path)


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_a_file_with_bare_or_prefixed_names_fills_the_encoder(tmp_path: Path, prefix: str) -> None:
    parent, network = make_network("unet", "resnet18"), make_network("fpn", "resnet18")
    tensors = {f"{prefix}{name}": tensor for name, tensor in parent.encoder.state_dict().items()}
    extra = {"head.0.bias": torch.zeros(1)} if prefix else {}
    save_file(plain(tensors | extra), tmp_path / "weights.safetensors")
    load_file(network, "resnet18", tmp_path / "weights.safetensors")
    encoder_tensors = network.encoder.state_dict()
    assert all(torch.equal(tensor, encoder_tensors[name]) for name, tensor in parent.encoder.state_dict().items())


def test_a_file_that_does_not_fit_is_refused_with_missing_and_unexpected_tensors(tmp_path: Path) -> None:
    tensors = make_network(None, "resnet18").encoder.state_dict()
    del tensors["bn1.weight"]
    save_file(plain(tensors), tmp_path / "short.safetensors")
    with pytest.raises(
        ValueError, match=r"does not fit the encoder resnet18: tensors 1 missing \(bn1\.weight \(64,\)\); allowed: "
    ):
        load_file(make_network(None, "resnet18"), "resnet18", tmp_path / "short.safetensors")
    save_file(plain(tensors | {"other": torch.zeros(2)}), tmp_path / "long.safetensors")
    with pytest.raises(ValueError, match=r"1 missing .*, 1 unknown \(other \(2,\)\); allowed: "):
        load_file(make_network(None, "resnet18"), "resnet18", tmp_path / "long.safetensors")


def test_a_missing_or_malformed_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"nothing")
    for name in ("absent", "broken"):
        with pytest.raises(ValueError, match=f"{name} cannot be read .*; allowed: a complete safetensors file"):
            load_file(make_network(None, "resnet18"), "resnet18", tmp_path / name)


def test_an_encoder_is_carried_between_architectures() -> None:
    parent, child = make_network("unet", "resnet18"), make_network("deeplabv3", "resnet18")
    transfer = carry(parent.state_dict(), child, ["encoder"])
    assert all(torch.equal(parent.state_dict()[name], child.state_dict()[name]) for name in transfer.carried)
    assert {name.partition(".")[0] for name in transfer.carried} == {"encoder"}
    assert {name.partition(".")[0] for name in transfer.new} == {"decoder", "head"}
    assert {name.partition(".")[0] for name in transfer.left_behind} == {"decoder", "head"}


def test_an_encoder_without_deeper_stages_is_carried_only_to_one_without_them() -> None:
    full, short = make_network("unet", "resnet18"), make_network("pspnet", "resnet18")
    transfer = carry(full.state_dict(), short, ["encoder"])
    assert any(name.startswith("encoder.layer4") for name in transfer.left_behind)
    with pytest.raises(ValueError, match=r"\n- encoder\.layer3\.0\.conv1\.weight \(256, 128, 3, 3\)"):
        carry(short.state_dict(), full, ["encoder"])


def test_a_decoder_of_another_architecture_is_refused_and_nothing_is_loaded() -> None:
    parent, child = make_network("unet", "resnet18"), make_network("fpn", "resnet18")
    before = {name: tensor.clone() for name, tensor in child.state_dict().items()}
    with pytest.raises(ValueError, match=r"\n- decoder\."):
        carry(parent.state_dict(), child, ["encoder", "decoder"])
    assert all(torch.equal(before[name], tensor) for name, tensor in child.state_dict().items())


def test_other_channels_are_refused_with_both_shapes() -> None:
    parent, child = make_network(None, "resnet18", channels=3), make_network(None, "resnet18", channels=1)
    expected = r"\n- encoder\.conv1\.weight \(64, 1, 7, 7\)\n\+ encoder\.conv1\.weight \(64, 3, 7, 7\)"
    with pytest.raises(ValueError, match=expected):
        carry(parent.state_dict(), child, ["encoder"])


def test_a_part_the_network_lacks_cannot_be_carried() -> None:
    parent = make_network("unet", "resnet18")
    with pytest.raises(ValueError, match="carry names decoder; allowed"):
        carry(parent.state_dict(), make_network(None, "resnet18"), ["encoder", "decoder"])
