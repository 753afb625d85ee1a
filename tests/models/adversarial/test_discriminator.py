from collections.abc import Mapping

import pytest
import torch
from pydantic import ValidationError

from models.adversarial.discriminator import Discriminator, make_discriminator
from models.adversarial.patches import PATCHES, discriminator_problem, receptive_field, smallest_side
from models.settings import DiscriminatorSettings

ALL: Mapping[str, DiscriminatorSettings] = {
    **{f"patchgan-{side}": DiscriminatorSettings(name="patchgan", receptive_field=side) for side in (16, 70, 256)},
    "fully_convolutional": DiscriminatorSettings(name="fully_convolutional"),
}
CLASSES = 3


def build_discriminator(settings: DiscriminatorSettings, channels: int = 1) -> Discriminator:
    torch.manual_seed(0)
    return make_discriminator(settings, classes=CLASSES, channels=channels)


def maps(side: int) -> torch.Tensor:
    return torch.rand(2, CLASSES, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("side", PATCHES)
def test_a_patch_discriminators_layers_have_the_receptive_field_of_its_name(side: int) -> None:
    assert receptive_field(PATCHES[side]) == side


@pytest.mark.parametrize("side", [16, 70, 256])
def test_one_output_depends_on_a_square_of_the_receptive_field(side: int) -> None:
    network = build_discriminator(ALL[f"patchgan-{side}"]).eval()
    labels = maps(side + 128)[:1].requires_grad_()
    logits = network(labels, torch.empty(0))
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    assert labels.grad is not None
    touched = labels.grad[0].abs().sum(dim=0) > 0
    rows, columns = touched.any(dim=1).nonzero().flatten(), touched.any(dim=0).nonzero().flatten()
    for line in (rows, columns):
        assert 0 < line[0] <= line[-1] < labels.shape[-1] - 1
        assert line[-1] - line[0] + 1 == side


@pytest.mark.parametrize("name", ALL)
def test_the_smallest_side_has_an_output_and_the_next_smaller_none(name: str) -> None:
    settings = ALL[name]
    side = smallest_side(settings)
    assert discriminator_problem(settings, shape=(side, side)) is None
    assert build_discriminator(settings)(maps(side), torch.empty(0)).numel() >= 2
    message = discriminator_problem(settings, shape=(side - 1, side - 1))
    assert message is not None
    assert message.startswith(f"image size is {side - 1} under {settings.name}; allowed: {side} or more; ")
    with pytest.raises(RuntimeError):
        build_discriminator(settings)(maps(side - 1), torch.empty(0))


def test_too_small_images_are_refused_with_the_allowed_receptive_fields() -> None:
    assert discriminator_problem(ALL["patchgan-256"], shape=(64, 64)) == (
        "image size is 64 under patchgan; allowed: 66 or more; take receptive_field 16 or 70, or raise image.size"
    )


def test_a_fully_convolutional_discriminator_has_an_output_for_every_pixel() -> None:
    assert build_discriminator(ALL["fully_convolutional"])(maps(72), torch.empty(0)).shape == (2, 1, 72, 72)


def test_a_patch_discriminator_has_outputs_for_overlapping_patches() -> None:
    assert build_discriminator(ALL["patchgan-70"])(maps(256), torch.empty(0)).shape == (
        2,
        1,
        30,
        30,
    )  # as by Isola et al.


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("conditional", [False, True])
def test_only_a_conditional_discriminator_depends_on_the_image(name: str, conditional: bool) -> None:
    network = build_discriminator(ALL[name].model_copy(update={"conditional": conditional}), channels=3).eval()
    first, second = torch.rand(2, 2, 3, 96, 96)
    same = torch.equal(network(maps(96), first), network(maps(96), second))
    assert same != conditional


@pytest.mark.parametrize("name", ALL)
def test_gradients_reach_the_label_maps_and_every_weight(name: str) -> None:
    network, labels = build_discriminator(ALL[name]), maps(96).requires_grad_()
    network(labels, torch.empty(0)).square().sum().backward()
    assert labels.grad is not None
    assert labels.grad.abs().sum() > 0
    assert all(weight.grad is not None for weight in network.parameters())


@pytest.mark.parametrize("name", ["patchgan-16", "fully_convolutional"])
def test_it_learns_to_separate_hard_maps_from_soft_ones(name: str) -> None:
    network = build_discriminator(ALL[name])
    soft = maps(32).softmax(dim=1)
    hard = torch.nn.functional.one_hot(soft.argmax(dim=1), CLASSES).permute(0, 3, 1, 2).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(10):
        loss = torch.nn.functional.softplus(-network(hard, torch.empty(0))).mean()
        loss = loss + torch.nn.functional.softplus(network(soft, torch.empty(0))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (network(hard, torch.empty(0)) > 0).float().mean() > 0.9
    assert (network(soft, torch.empty(0)) < 0).float().mean() > 0.9


def test_only_the_patch_discriminator_has_a_receptive_field_setting() -> None:
    with pytest.raises(ValidationError, match="receptive_field is 16 under fully_convolutional; allowed: under patch"):
        DiscriminatorSettings(name="fully_convolutional", receptive_field=16)
    with pytest.raises(ValidationError, match="Input should be 16, 70 or 256"):
        DiscriminatorSettings.model_validate({"name": "patchgan", "receptive_field": 34})
