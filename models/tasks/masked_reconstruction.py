"""Masked reconstruction: SimMIM (Xie et al. 2022) and masked autoencoders, MAE (He et al. 2022)."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.architectures.layers import resized
from models.losses.functions import weighted_sum
from models.masked_autoencoder import MaskedAutoencoder
from models.settings import loss_problem
from models.task_settings.masking import MaskedReconstructionSettings, mask_side
from models.tasks.base import Batch, Outputs, Task, low_score_message
from models.tasks.masking import hidden_cells, hidden_pixels, resized_mask, visible_numbers

VARIANCE_FLOOR = 1e-6
"""Added to the variance of a patch before division, as in the code of He et al."""

CONSTANT = 0.05
"""Highest R2 at which a prediction counts as constant."""


class MaskedReconstruction(Task):
    """Target: the hidden pixels of the images (N, channels, height, width) in 0..1; `outputs.names` are the channels.

    SimMIM replaces hidden squares by the mean with which the network normalises images, so that any encoder can be
    trained. In MAE the encoder processes visible patches only. The masks of an image depend on its key alone, so that
    they are the same for any number of workers, and fixed in validation.
    """

    monitor = "loss"
    minimise = True

    def __init__(self, settings: MaskedReconstructionSettings, outputs: Outputs) -> None:
        if problem := loss_problem(settings.losses, "image", exclusive=False):
            raise ValueError(problem)
        self.settings = settings
        self.outputs = outputs
        self.trains = settings.trains
        self._normalises = settings.method == "mae" and settings.norm_pixels

    def head_channels(self) -> int:
        """Return the number of image channels."""
        return len(self.outputs.names)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss, a mean over the hidden pixels of all workers."""
        return weighted_sum(self.settings.losses, *self._predict(network, batch))

    def network_input(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the images (N, channels, H, W), under SimMIM with the hidden squares replaced."""
        if self.settings.method == "mae":
            return batch.images
        return _masked(network, batch.images, self._hidden_squares(batch.images, batch.keys))

    @torch.no_grad()
    def statistics(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return sums of loss and hidden values, then of squared errors, targets and squared targets."""
        output, target = self._predict(network, batch)
        known = ~torch.isnan(target)
        values = known.sum().double()
        loss = weighted_sum(self.settings.losses, output, target).double() * values
        truth = torch.where(known, target, 0).double()
        error = ((output.double() - truth) * known).square().sum()
        return torch.stack([loss, values, error, truth.sum(), truth.square().sum()])

    def scores(self, statistics: Tensor) -> Mapping[str, float]:
        """Return loss, R2 and, unless the target is normalised, the peak signal-to-noise ratio in dB (peak 1).

        R2 is the share of the variance of hidden pixels that the network predicts, 0 if it predicts a constant.
        """
        loss, values, error, total, squares = statistics.tolist()
        variation = squares - total**2 / values if values else 0.0
        scores = {
            "loss": loss / values if values else math.nan,
            "r2": 1 - error / variation if variation > 0 else math.nan,
        }
        if not self._normalises:
            psnr = math.nan if not values else 10 * math.log10(values / error) if error else math.inf
            scores["psnr"] = psnr
        return scores

    def warning(self, scores: Mapping[str, float]) -> str | None:
        """Return a message if the prediction is hardly better than a constant."""
        return low_score_message(
            scores,
            "r2",
            CONSTANT,
            subject="the prediction of hidden pixels is hardly better than their mean",
            expected=f"above {CONSTANT:g}",
            remedy="train longer, change optimizer.lr or lower mask_ratio",
        )

    def predict(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return predicted pixels (N, channels, H, W) in the scale of the images, and which are hidden, (N, 1, H, W).

        H and W are those of the output, which are multiples of the patches of a plain vision transformer.
        """
        output, hidden = self._output(network, batch)
        if self._normalises:
            mean, deviation = _patch_statistics(self._images_like(output, batch), _patch(network))
            output = output.float() * deviation + mean
        return output, hidden

    def _predict(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the output and its target, NaN where pixels are visible."""
        output, hidden = self._output(network, batch)
        target = self._images_like(output, batch)
        if self._normalises:
            mean, deviation = _patch_statistics(target, _patch(network))
            target = (target - mean) / deviation
        return output, target.masked_fill(~hidden, torch.nan)

    def _output(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the output (N, channels, H, W), and a mask (N, 1, H, W) of the hidden pixels."""
        images = batch.images
        if isinstance(network, MaskedAutoencoder):
            cells = hidden_cells(batch.keys, network.grid(images), self.settings.ratio)
            output = network(images, visible=visible_numbers(cells).to(images.device))
            hidden = hidden_pixels(cells, network.patch, output.shape[-2:])
            return output, hidden.to(images.device)
        hidden = self._hidden_squares(images, batch.keys)
        output = network(_masked(network, images, hidden))
        return output, resized_mask(hidden, output.shape[-2:])

    def _hidden_squares(self, images: Tensor, keys: Sequence[int]) -> Tensor:
        """Return a mask (N, 1, H, W) of the pixels that SimMIM hides."""
        height, width = images.shape[-2:]
        side = mask_side(self.settings, (height, width))
        cells = hidden_cells(keys, (-(-height // side), -(-width // side)), self.settings.ratio)
        return hidden_pixels(cells, side, (height, width)).to(images.device)

    def _images_like(self, output: Tensor, batch: Batch) -> Tensor:
        return resized(batch.images.float(), *output.shape[-2:])


def _masked(network: nn.Module, images: Tensor, hidden: Tensor) -> Tensor:
    return torch.where(hidden, network.get_buffer("mean"), images)


def _patch(network: nn.Module) -> int:
    assert isinstance(network, MaskedAutoencoder), "only these have a normalised target"
    return network.patch


def _patch_statistics(images: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation, (N, 1, H, W), of the patch of each pixel, over all channels."""
    count, channels, height, width = images.shape
    patches = images.view(count, channels, height // patch, patch, width // patch, patch)
    variance, mean = torch.var_mean(patches, dim=(1, 3, 5), keepdim=True)
    deviation = (variance + VARIANCE_FLOOR).sqrt()
    one, other = (
        part.expand(-1, 1, -1, patch, -1, patch).reshape(count, 1, height, width) for part in (mean, deviation)
    )
    return one, other
