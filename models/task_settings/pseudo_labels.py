"""Settings of self-training with pseudo-labels, as written in a study file. Does not import torch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from models.settings import (
    BaseModelSettings,
    Pool,
    SemiSupervisedSettings,
    TaskSettings,
    soft_losses,
    whole_mask_losses,
)


class PseudoLabelBlock(BaseModelSettings):
    """How the previous stage labels images without masks, and how they are learned from.

    `labels` are the most likely classes (`hard`, Lee 2013) or probabilities (`soft`, Xie et al. 2020). Pixels are
    ignored if the probability of their most likely class is below `confidence`; of overlapping classes each is present
    or absent, whichever is more likely. `ensemble` is the number of networks whose probabilities are averaged: the
    previous stage, and further runs of it with other seeds. `unlabelled` selects the images. Their loss is multiplied
    by `weight`, which rises in the first `ramp_up` of all updates, a fraction.
    """

    labels: Literal["hard", "soft"] = "hard"
    confidence: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ensemble: Annotated[int, Field(ge=1, le=100)] = 1
    unlabelled: Pool = "hidden"
    weight: Annotated[float, Field(ge=0)] = 1.0
    ramp_up: Annotated[float, Field(ge=0, le=1)] = 0.0


class PseudoLabelSettings(SemiSupervisedSettings):
    """Segmentation that also learns from pseudo-labels of images without masks."""

    task: Literal["pseudo_labels"] = "pseudo_labels"
    pseudo_labels: PseudoLabelBlock = PseudoLabelBlock()

    @property
    def pool(self) -> Pool:
        """Return which images without masks are used."""
        return self.pseudo_labels.unlabelled

    @model_validator(mode="after")
    def _check_losses(self) -> Self:
        used = [name for name, weight in self.loss.items() if weight]
        unfit = [name for name in used if name not in soft_losses]
        if self.pseudo_labels.labels == "soft" and unfit:
            raise ValueError(
                f"loss is {', '.join(unfit)} with pseudo_labels.labels: soft; allowed: {', '.join(soft_losses)}; "
                "choose one of these, or set labels: hard"
            )
        unfit = [name for name in used if name in whole_mask_losses]
        if self.pseudo_labels.confidence and unfit:
            raise ValueError(
                f"loss is {', '.join(unfit)} with pseudo_labels.confidence {self.pseudo_labels.confidence:g}, which "
                "ignores pixels, but these need complete masks; allowed: confidence 0; change it, or the loss"
            )
        return self


def pseudo_labels_of(settings: TaskSettings) -> PseudoLabelBlock | None:
    """Return the settings of pseudo-labels of a task, None if it has none."""
    return settings.pseudo_labels if isinstance(settings, PseudoLabelSettings) else None
