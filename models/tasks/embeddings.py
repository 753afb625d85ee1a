"""Embeddings of views of images, and how spread they are."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.tasks.base import low_score_message

COLLAPSED = 0.1
"""Standard deviation below which embeddings count as equal."""


def embed(network: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Return unit vectors (N, views, D), float32, of views of equal size, (N, channels, H, W) each.

    All views are one batch, so that batch norm does not tell them apart.
    """
    return unit_vectors(by_view(network(torch.cat(list(views))), len(views)))


def by_view(outputs: Tensor, views: int) -> Tensor:
    """Return outputs (N, views, D) of views that were concatenated, (views x N, D)."""
    return outputs.view(views, -1, outputs.shape[1]).transpose(0, 1)


def unit_vectors(outputs: Tensor) -> Tensor:
    """Return the outputs (..., D) divided by their Euclidean norm, float32."""
    return F.normalize(outputs.float(), dim=-1)


def similarities(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine similarities (N, M) of unit vectors (N, D) and (M, D), in float32 under any precision."""
    with torch.autocast(first.device.type, enabled=False):
        return first @ second.T


def retrieval(embeddings: Tensor) -> Tensor:
    """Return the share of views whose most similar embedding is that of the other view of their image.

    Args:
        embeddings: Unit vectors (N, 2, D); each view is compared with the 2 N - 1 others.
    """
    views = embeddings.flatten(0, 1)
    numbers = torch.arange(len(views), device=views.device)
    nearest = similarities(views, views).masked_fill(numbers.unsqueeze(0) == numbers.unsqueeze(1), -math.inf).argmax(1)
    return (nearest == (numbers ^ 1)).double().mean()


def embedding_sums(embeddings: Tensor) -> Tensor:
    """Return the number of unit vectors (..., D), their sum and the sum of their outer products, 1-d float64."""
    vectors = embeddings.flatten(0, -2).double()
    return torch.cat([vectors.new_tensor([len(vectors)]), vectors.sum(dim=0), (vectors.T @ vectors).flatten()])


def spread(sums: Tensor) -> Mapping[str, float]:
    """Return two measures of the spread of embeddings, from the result of `embedding_sums`.

    `embedding_std` is the mean standard deviation of the D components times the root of D: at most 1, near 1 for
    directions that are evenly distributed, and 0 for equal embeddings (Chen and He 2021). `effective_rank` is the
    number of dimensions that embeddings occupy, the exponential of the entropy of the singular values of the centred
    embeddings (Roy and Vetterli 2007).
    """
    count, values = sums[0].item(), sums[1:].cpu()
    if not count:
        return {"embedding_std": math.nan, "effective_rank": math.nan}
    dimensions = math.isqrt(len(values))  # D + D x D values
    mean, products = values[:dimensions] / count, values[dimensions:].view(dimensions, dimensions) / count
    covariance = products - torch.outer(mean, mean)
    deviations = covariance.diagonal().clamp_min(0).sqrt()
    singular = torch.linalg.eigvalsh(covariance).clamp_min(0).sqrt()
    shares = singular / singular.sum()
    entropy = torch.special.entr(shares).nansum()  # equal embeddings have no singular values, and rank 1
    return {
        "embedding_std": float(deviations.mean()) * math.sqrt(dimensions),
        "effective_rank": math.exp(float(entropy)),
    }


def collapse_message(scores: Mapping[str, float]) -> str | None:
    """Return a message if the embeddings of the validation images are almost equal, else None."""
    return low_score_message(
        scores,
        "embedding_std",
        COLLAPSED,
        subject="the embeddings of all validation images are almost equal (collapse)",
        expected=f"{COLLAPSED:g} to 1",
        remedy="lower optimizer.lr, raise batch_size or train longer",
    )
