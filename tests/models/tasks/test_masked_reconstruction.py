"""Masked reconstruction compared with the formulas of SimMIM and MAE."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.architectures.parts import Blueprint
from models.build import build
from models.masked_autoencoder import MaskedAutoencoder
from models.network import Network
from models.task_settings.masking import MaskedReconstructionSettings, mask_side
from models.tasks.base import Batch, Outputs
from models.tasks.masked_reconstruction import MaskedReconstruction
from models.tasks.masking import hidden_cells, hidden_pixels, visible_numbers

MEAN = 0.4
PATCH = 16


class Recorder(nn.Module):
    """Records its input and returns a fixed output."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output
        self.register_buffer("mean", torch.full((1, 1, 1, 1), MEAN))

    def forward(self, images: Tensor) -> Tensor:
        self.images = images
        return self.output


def task(channels: int = 1, **settings: object) -> MaskedReconstruction:
    names = ("grey",) if channels == 1 else ("red", "green", "blue")
    return MaskedReconstruction(MaskedReconstructionSettings.model_validate(settings), Outputs(names=names))


def autoencoder(channels: int = 1, backbone: str = "tu-test_vit") -> MaskedAutoencoder:
    torch.manual_seed(0)
    network = build(
        Blueprint(architecture=None, backbone=backbone, channels=channels, outputs=channels, trains_decoder=False,
                  head="patches", head_width=32, head_depth=1)
    )  # fmt: skip
    assert isinstance(network, MaskedAutoencoder)
    return network.eval()


def simmim_network() -> Network:
    torch.manual_seed(0)
    return build(Blueprint(architecture=None, backbone="tu-lcnet_050", channels=1, outputs=1, head="pixels")).eval()


def test_simmim_is_the_mean_absolute_error_of_hidden_pixels() -> None:
    images, output = torch.rand(2, 1, 24, 16), torch.rand(2, 1, 24, 16)
    network, batch = Recorder(output), Batch(images=images, target=images, keys=(3, 8))
    loss = task(mask_size=4, mask_ratio=0.5).loss(network, batch)
    hidden = (network.images == MEAN).numpy()
    assert hidden.reshape(2, 6, 4, 4, 4).transpose(0, 1, 3, 2, 4).reshape(2, 24, 16).all(axis=2).sum(
        axis=1
    ).tolist() == [12, 12]
    assert torch.equal(network.images[~torch.from_numpy(hidden)], images[~torch.from_numpy(hidden)])
    assert loss.item() == pytest.approx(np.abs((output - images).numpy()[hidden]).mean(), rel=1e-6)


def test_the_network_input_of_simmim_is_the_masked_image() -> None:
    images = torch.rand(2, 1, 24, 16)
    network, batch = Recorder(images), Batch(images=images, target=images, keys=(3, 8))
    masked = task(mask_size=4)
    masked.loss(network, batch)
    assert torch.equal(masked.network_input(network, batch), network.images)
    assert not torch.equal(network.images, images)


def test_scores_are_those_of_hidden_pixels() -> None:
    images, output = torch.rand(3, 1, 16, 16), torch.rand(3, 1, 16, 16)
    network, batch = Recorder(output), Batch(images=images, target=images, keys=(1, 2, 3))
    masked = task(mask_size=2, loss={"mse": 1.0})
    scores = masked.scores(masked.statistics(network, batch))
    hidden = network.images == MEAN
    error, truth = (output - images)[hidden].double().square().mean(), images[hidden].double()
    assert scores["loss"] == pytest.approx(error.item(), rel=1e-5)
    assert scores["psnr"] == pytest.approx(-10 * math.log10(error), rel=1e-5)
    assert scores["r2"] == pytest.approx(1 - error.item() / truth.var(correction=0).item(), rel=1e-5)


def test_a_constant_prediction_has_an_r2_of_zero() -> None:
    images = torch.rand(4, 1, 16, 16)
    masked, network = task(mask_size=4), Recorder(torch.zeros_like(images))
    batch = Batch(images=images, target=images, keys=range(4))
    masked.loss(network, batch)
    network.output = torch.full_like(images, images[network.images == MEAN].mean().item())
    scores = masked.scores(masked.statistics(network, batch))
    assert scores["r2"] == pytest.approx(0, abs=1e-6)
    assert str(masked.warning(scores)).startswith("the prediction of hidden pixels is hardly better than their mean")


@pytest.mark.parametrize("scores", [{"r2": 0.5}, {"r2": math.nan}, {}])
def test_a_prediction_that_varies_or_is_not_scored_is_not_reported_as_collapsed(scores: dict[str, float]) -> None:
    assert task().warning(scores) is None


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_mae_is_the_mean_squared_error_of_hidden_patches(channels: int, normalised: bool) -> None:
    network, images = autoencoder(channels), torch.rand(2, channels, 64, 48)
    mae = task(channels, method="mae", norm_pixels=normalised)
    keys = (5, 6)
    hidden = hidden_cells(keys, (4, 3), 0.75)
    assert hidden.flatten(1).sum(dim=1).tolist() == [9, 9]
    with torch.no_grad():
        loss = mae.loss(network, Batch(images=images, target=images, keys=keys)).item()
        output = network(images, visible=visible_numbers(hidden)).numpy().astype(float)
    losses = []
    for image, row, column in hidden.nonzero().tolist():
        place = (image, slice(None), slice(PATCH * row, PATCH * (row + 1)), slice(PATCH * column, PATCH * (column + 1)))
        truth = images.numpy().astype(float)[place]
        if normalised:
            truth = (truth - truth.mean()) / (truth.var(ddof=1) + 1e-6) ** 0.5
        losses.append(((output[place] - truth) ** 2).mean())
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_prediction_in_the_scale_of_images_undoes_the_normalisation() -> None:
    network, images = autoencoder(), torch.rand(2, 1, 32, 32)
    batch = Batch(images=images, target=images, keys=(1, 2))
    with torch.no_grad():
        predicted, hidden = task(method="mae").predict(network, batch)
        patches = torch.stack([predicted, images]).unfold(3, PATCH, PATCH).unfold(4, PATCH, PATCH).flatten(5)
        raw = network(images, visible=visible_numbers(hidden_cells((1, 2), (2, 2), 0.75)))
        raw_patches = raw.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).flatten(4)
    mean, deviation = patches[1].mean(dim=4, keepdim=True), (patches[1].var(dim=4, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(patches[0], raw_patches * deviation + mean)
    assert hidden.sum().item() == 2 * 3 * PATCH**2


@pytest.mark.parametrize("method", ["simmim", "mae"])
def test_hidden_pixels_do_not_change_the_prediction(method: str) -> None:
    torch.manual_seed(0)
    masked, images = task(method=method), torch.rand(2, 1, 64, 64)
    network = autoencoder()
    model = network if method == "mae" else simmim_network()
    with torch.no_grad():
        first, hidden = masked.predict(model, Batch(images=images, target=images, keys=(1, 2)))
        changed = torch.where(hidden, torch.rand_like(images), images)
        second, _ = masked.predict(model, Batch(images=changed, target=changed, keys=(1, 2)))
        if method == "mae":
            cells = visible_numbers(hidden_cells((1, 2), (4, 4), 0.75))
            first, second = network(images, visible=cells), network(changed, visible=cells)
    assert torch.equal(first, second)


def test_masks_depend_on_keys_alone() -> None:
    masks = hidden_cells((1, 2, 1, 3), (6, 5), 0.6)
    assert torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[1])
    assert torch.equal(masks[3:], hidden_cells((3,), (6, 5), 0.6))
    assert masks.flatten(1).sum(dim=1).tolist() == [18] * 4


@pytest.mark.parametrize(("ratio", "count"), [(0.01, 1), (0.99, 3)])
def test_at_least_one_cell_is_hidden_and_one_visible(ratio: float, count: int) -> None:
    assert hidden_cells((7,), (2, 2), ratio).sum().item() == count


def test_every_cell_is_hidden_equally_often() -> None:
    shares = hidden_cells(range(4000), (4, 4), 0.75).float().mean(dim=0)
    assert (shares - 0.75).abs().max().item() < 0.04


def test_cells_at_the_border_are_clipped() -> None:
    pixels = hidden_pixels(torch.ones(1, 2, 3, dtype=torch.bool), 4, (7, 10))
    assert pixels.shape == (1, 1, 7, 10)
    assert pixels.all()


@pytest.mark.parametrize(
    ("shape", "side"),
    [((32, 32), 4), ((64, 64), 8), ((192, 192), 32), ((224, 224), 32), ((256, 512), 32), ((512, 512), 64)],
)
def test_the_default_side_of_squares_is_about_an_eighth_of_the_image(shape: tuple[int, int], side: int) -> None:
    assert mask_side(MaskedReconstructionSettings(), shape) == side
    assert mask_side(MaskedReconstructionSettings(mask_size=5), shape) == 5


@pytest.mark.parametrize("method", ["simmim", "mae"])
def test_it_overfits_eight_images(method: str) -> None:
    torch.manual_seed(0)
    columns = torch.arange(32) / 5
    images = torch.stack([0.5 + 0.5 * torch.sin(columns * (1 + 0.2 * n) + n).expand(1, 32, 32) for n in range(8)])
    model: nn.Module = autoencoder() if method == "mae" else simmim_network()
    masked = task(method=method, mask_ratio=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batch = Batch(images=images, target=images, keys=range(8))
    for _ in range(150):
        optimizer.zero_grad()
        masked.loss(model.train(), batch).backward()
        optimizer.step()
    assert masked.scores(masked.statistics(model, batch))["r2"] > 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm_pixels": False}, "norm_pixels is False under simmim; allowed: under mae"),
        ({"decoder_depth": 2}, "decoder_depth is 2 under simmim; allowed: under mae"),
        ({"method": "mae", "mask_size": 8}, "mask_size is 8 under mae; allowed: under simmim"),
        ({"method": "mae", "decoder": "architecture"}, "decoder is architecture under mae; allowed: under simmim"),
        ({"upsampling": "bilinear"}, "upsampling is bilinear with the decoder published; allowed: with decoder: arch"),
        ({"loss": {"l1": 0.0}}, "every weight of the loss is 0"),
    ],
)
def test_settings_unused_by_a_method_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedReconstructionSettings.model_validate(settings)


def test_only_the_decoder_of_an_architecture_can_be_carried() -> None:
    assert MaskedReconstructionSettings().trains == ("encoder",)
    assert MaskedReconstructionSettings(method="mae").trains == ("encoder",)
    assert MaskedReconstructionSettings(decoder="architecture").trains == ("encoder", "decoder")
