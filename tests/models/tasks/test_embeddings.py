"""Embeddings of views, and measures of their spread compared with their definitions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.tasks.embeddings import collapse_message, embed, embedding_sums, retrieval, spread


def random_vectors(count: int, dimensions: int) -> Tensor:
    return F.normalize(torch.randn(count, dimensions, generator=torch.Generator().manual_seed(0)), dim=1)


def test_embeddings_are_unit_vectors_by_image_and_view() -> None:
    network = nn.Flatten()
    views = [torch.rand(3, 1, 2, 2), torch.rand(3, 1, 2, 2)]
    embeddings = embed(network, views)
    assert embeddings.shape == (3, 2, 4)
    for number, view in enumerate(views):
        torch.testing.assert_close(embeddings[:, number], F.normalize(view.flatten(1), dim=1))


def test_embeddings_are_float32_under_bfloat16() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert embed(nn.Sequential(nn.Flatten(), nn.Linear(4, 4)), [torch.rand(3, 1, 2, 2)]).dtype == torch.float32


def test_spread_equals_its_definition() -> None:
    vectors = random_vectors(40, 8) * torch.tensor([3, 2, 1, 1, 1, 1, 0.1, 0.0])
    vectors = F.normalize(vectors, dim=1)
    scores = spread(embedding_sums(vectors.view(20, 2, 8)))
    values = vectors.double().numpy()
    assert scores["embedding_std"] == pytest.approx(values.std(axis=0).mean() * math.sqrt(8), rel=1e-6)
    singular = np.linalg.svd(values - values.mean(axis=0), compute_uv=False)
    shares = singular[singular > 1e-9] / singular.sum()
    assert scores["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-4)


def test_sums_of_batches_add_up() -> None:
    vectors = random_vectors(30, 4)
    sums = embedding_sums(vectors[:11]) + embedding_sums(vectors[11:])
    torch.testing.assert_close(sums, embedding_sums(vectors))


def test_retrieval_is_the_share_of_views_whose_nearest_other_view_is_of_their_image() -> None:
    embeddings = random_vectors(24, 3).view(12, 2, 3)
    flat = embeddings.view(24, 3).numpy()
    nearest = [max((other for other in range(24) if other != view), key=lambda other: flat[view] @ flat[other])
               for view in range(24)]  # fmt: skip
    hits = [neighbour // 2 == view // 2 for view, neighbour in enumerate(nearest)]
    assert 0 < sum(hits) < 24
    assert retrieval(embeddings).item() == pytest.approx(np.mean(hits))
    assert retrieval(random_vectors(12, 64).unsqueeze(1).expand(12, 2, 64)).item() == 1


def test_evenly_distributed_embeddings_have_a_spread_near_one_and_the_rank_of_their_space() -> None:
    scores = spread(embedding_sums(random_vectors(5000, 16)))
    assert scores["embedding_std"] == pytest.approx(1, abs=0.01)
    assert scores["effective_rank"] == pytest.approx(16, abs=0.05)
    assert collapse_message(scores) is None


def test_equal_embeddings_have_no_spread_and_are_reported() -> None:
    scores = spread(embedding_sums(random_vectors(1, 16).expand(50, 16)))
    assert scores["embedding_std"] == pytest.approx(0, abs=1e-6)
    assert scores["effective_rank"] == pytest.approx(1, abs=1e-3)
    message = collapse_message(scores)
    assert message is not None
    assert "collapse" in message
    assert "expected: 0.1 to 1" in message


def test_the_spread_without_embeddings_is_undefined_and_not_reported() -> None:
    scores = spread(torch.zeros(1 + 4 + 16, dtype=torch.float64))
    assert all(math.isnan(value) for value in scores.values())
    assert collapse_message(scores) is None
