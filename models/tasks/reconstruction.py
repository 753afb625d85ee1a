"""Autoencoder, denoising if `corrupt` is above 0 (Vincent et al. 2008)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.losses.functions import weighted_sum
from models.settings import ReconstructionSettings, loss_problem
from models.tasks.base import Batch, Outputs, Task


class Reconstruction(Task):
    """Target: the clean images (N, channels, height, width) in 0..1; `outputs.names` are their channels.

    The raw output is compared with the images: with a sigmoid the gradient of the squared error would vanish near black
    and white, where radiographs have most of their pixels.
    """

    trains = ReconstructionSettings.trains
    monitor = "loss"
    minimise = True

    def __init__(self, settings: ReconstructionSettings, outputs: Outputs) -> None:
        if problem := loss_problem(settings.loss, "image", exclusive=False):
            raise ValueError(problem)
        self.settings = settings
        self.outputs = outputs

    def head_channels(self) -> int:
        """Return the number of image channels."""
        return len(self.outputs.names)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the batch; noise comes from torch's global generator, in training only."""
        images = batch.images
        if network.training and self.settings.corrupt:
            images = images + self.settings.corrupt * torch.randn_like(images)
        return weighted_sum(self.settings.loss, network(images), batch.target)

    @torch.no_grad()
    def statistics(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return sums of loss, images, squared error and values."""
        output = network(batch.images).float()
        loss = weighted_sum(self.settings.loss, output, batch.target).double()
        error = (output - batch.target).double().square().sum()
        return torch.stack([loss * len(output), loss.new_tensor(len(output)), error, loss.new_tensor(output.numel())])

    def scores(self, statistics: Tensor) -> Mapping[str, float]:
        """Return the loss and the peak signal-to-noise ratio in dB (peak 1) of all images together."""
        loss, images, error, values = statistics.tolist()
        if not images:
            return {"loss": math.nan, "psnr": math.nan}
        psnr = 10 * math.log10(values / error) if error else math.inf
        return {"loss": loss / images, "psnr": psnr}
