import numpy as np
import pytest
import torch
from torch import nn

from models.build import Blueprint, build
from models.network import Network


def make_network(architecture: str | None = "unet", backbone: str = "resnet18", channels: int = 1) -> Network:
    torch.manual_seed(0)
    return build(Blueprint(architecture=architecture, backbone=backbone, channels=channels, outputs=1))


def frozen_parameters(network: Network) -> set[str]:
    return {name for name, parameter in network.named_parameters() if not parameter.requires_grad}


def test_images_are_normalised_by_the_mean_of_the_channel_statistics() -> None:
    encoder_inputs: list[torch.Tensor] = []
    network = make_network().eval()
    network.encoder.register_forward_pre_hook(lambda _, inputs: encoder_inputs.append(inputs[0]))
    network(torch.full((1, 1, 64, 64), 0.5))
    mean, std = (0.485 + 0.456 + 0.406) / 3, (0.229 + 0.224 + 0.225) / 3
    torch.testing.assert_close(encoder_inputs[0], torch.full((1, 1, 64, 64), (0.5 - mean) / std))


def test_statistics_of_the_images_are_not_weights() -> None:
    assert not {"mean", "std"} & set(make_network().state_dict())


@pytest.mark.parametrize(
    ("backbone", "stage", "start"),
    [
        ("resnet18", "encoder.stage1", ("encoder.conv1", "encoder.bn1")),
        ("resnet18", "encoder.stage2", ("encoder.layer1",)),
        ("resnet18", "encoder.stage5", ("encoder.layer4",)),
        ("vgg11", "encoder.stage1", ("encoder.features.0.",)),
        ("vgg11", "encoder.stage5", ("encoder.features.16.", "encoder.features.18.")),
        ("mit_b0", "encoder.stage1", ("encoder.patch_embed1", "encoder.block1", "encoder.norm1")),
    ],
)
def test_stages_are_numbered_from_the_image(backbone: str, stage: str, start: tuple[str, ...]) -> None:
    network = make_network(backbone=backbone)
    network.freeze([stage])
    assert frozen_parameters(network) == {name for name, _ in network.named_parameters() if name.startswith(start)}


def test_a_frozen_stage_keeps_its_running_statistics() -> None:
    network = make_network()
    network.freeze(["encoder.stage2"])
    network.train()
    network(torch.rand(2, 1, 64, 64))
    means = {name: tensor.abs().sum().item() for name, tensor in network.named_buffers() if "running_mean" in name}
    assert all((value == 0) == name.startswith("encoder.layer1") for name, value in means.items())


def test_dropout_inside_a_frozen_decoder_is_off_in_training() -> None:
    network = make_network("fpn")
    network.freeze(["decoder"])
    network.train()
    assert network.decoder is not None
    drops = [module for module in network.decoder.modules() if isinstance(module, nn.Dropout2d)]
    assert drops
    assert not any(module.training for module in drops)


def test_unfreezing_a_stage_leaves_the_others_frozen() -> None:
    network = make_network()
    network.freeze(["encoder"])
    network.unfreeze(["encoder.stage5"])
    free = {name for name, p in network.encoder.named_parameters() if p.requires_grad}
    assert free == {name for name, _ in network.encoder.named_parameters() if name.startswith("layer4")}


def test_unfreezing_does_not_train_parameters_without_effect_on_the_logits() -> None:
    network = make_network("unetplusplus", "vgg11")
    idle = frozen_parameters(network)
    network.freeze(["decoder"])
    network.unfreeze(["decoder"])
    assert idle
    assert frozen_parameters(network) == idle


@pytest.mark.parametrize("part", ["head", "encoder.stage6", "layer1"])
def test_freezing_an_unknown_part_is_refused_with_the_known_ones(part: str) -> None:
    with pytest.raises(ValueError, match=rf"freeze names {part}; allowed: decoder, encoder, encoder.stage1"):
        make_network().freeze([part])


def test_an_encoder_alone_has_no_decoder_to_freeze() -> None:
    with pytest.raises(ValueError, match="freeze names decoder"):
        make_network(None).freeze(["decoder"])


def test_a_training_batch_of_one_is_refused_if_global_averages_are_normalised() -> None:
    network = make_network("deeplabv3")
    with pytest.raises(ValueError, match="a training batch has 1 image; allowed: at least 2"):
        network.train()(torch.rand(1, 1, 64, 64))
    assert network.eval()(torch.rand(1, 1, 64, 64)).shape == (1, 1, 64, 64)


def test_dropout_inside_a_frozen_encoder_stays_active_on_request() -> None:
    network = make_network("unet_plain", "own")
    network.freeze(["encoder"], keep_dropout=True)
    network.train()
    statistics = {name: tensor.clone() for name, tensor in network.encoder.named_buffers()}
    images = torch.rand(2, 1, 64, 64)
    first, second = (network.encoder(images)[-1] for _ in range(2))
    assert not torch.equal(first, second)
    assert all(torch.equal(tensor, statistics[name]) for name, tensor in network.encoder.named_buffers())
    assert frozen_parameters(network) == {f"encoder.{name}" for name, _ in network.encoder.named_parameters()}
    network.eval()
    first, second = (network.encoder(images)[-1] for _ in range(2))
    assert torch.equal(first, second)


def test_dropout_of_some_frozen_stages_stays_active_on_request() -> None:
    network = make_network("unet_plain", "own")
    network.freeze(["encoder.stage1"], keep_dropout=True)
    network.train()
    drops = [layer.training for layer in network.encoder.modules() if isinstance(layer, nn.Dropout)]
    norms = [layer.training for layer in network.encoder.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert drops == [True] * 5
    assert norms == [False] * 2 + [True] * 8


@pytest.mark.parametrize(("architecture", "multiple"), [("segnet", 32), ("unet_plain", 16), ("xnet", 8)])
@pytest.mark.parametrize("side", [40, 45, 64])
def test_images_are_padded_by_reflection_to_the_next_multiple_and_logits_cropped(
    architecture: str, multiple: int, side: int
) -> None:
    network = make_network(architecture, "own").eval()
    images = torch.rand(2, 1, side, side)
    extra = -side % multiple
    before, after = extra // 2, extra - extra // 2
    wide = np.pad(images.numpy(), ((0, 0), (0, 0), (before, after), (before, after)), mode="reflect")
    with torch.no_grad():
        expected = network(torch.from_numpy(wide))[..., before : before + side, before : before + side]
        assert network(images).shape == (2, 1, side, side)
        torch.testing.assert_close(network(images), expected)


def test_a_flattened_head_uses_the_maps_of_padded_images() -> None:
    blueprint = Blueprint(
        architecture="unet_plain",
        backbone="own",
        channels=1,
        outputs=2,
        trains_decoder=False,
        head="flatten",
        shape=(40, 40),
    )
    network = build(blueprint)
    assert network.head.weight.shape == (2, 1024 * 3 * 3)
    assert network(torch.rand(2, 1, 40, 40)).shape == (2, 2)
