"""Scores of a trained localisation stage on test and validation images."""

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.loading.prepare import Prepared
from models.build import Blueprint, build
from models.settings import LocalisationSettings
from models.tasks import make_task
from models.tasks.base import Outputs
from study.planning.dataset_view import HeldOutRows
from study.training.scoring.stage_scores import stage_scores
from tests.support.workers import together

SIDE, IMAGES = 32, 20


def arrays() -> Prepared:
    random = np.random.default_rng(0)
    targets = random.random((IMAGES, 2)).astype(np.float32)
    targets[3] = np.nan  # an image without this structure
    images = random.integers(0, 256, (IMAGES, SIDE, SIDE, 1), dtype=np.uint8)
    return Prepared(images=images, targets=targets, shapes=np.full((IMAGES, 2), SIDE, np.int32))


def scores(test: tuple[int, ...], validation: tuple[int, ...] = ()) -> dict[tuple[str, str], float]:
    torch.manual_seed(0)
    network = build(
        Blueprint(
            architecture="unet_plain", backbone="own", channels=1, outputs=2, trains_decoder=False, shape=(SIDE, SIDE)
        )
    )
    task = make_task(LocalisationSettings(), Outputs(names=("x", "y")))
    lines = stage_scores(network, task, arrays(), validation, HeldOutRows(rows=test, fingerprint="images")).to_pylist()
    assert {line["fingerprint"] for line in lines} <= {"", "images"}
    return {(line["split"], line["metric"]): line["value"] for line in lines}


def predicted() -> NDArray[np.float64]:
    torch.manual_seed(0)
    network = build(
        Blueprint(
            architecture="unet_plain", backbone="own", channels=1, outputs=2, trains_decoder=False, shape=(SIDE, SIDE)
        )
    ).eval()
    with torch.no_grad():
        images = torch.from_numpy(arrays().images).permute(0, 3, 1, 2).float() / 255
        return np.asarray(network(images).double().numpy())


def test_errors_are_those_of_the_predicted_points_in_pixels() -> None:
    test = tuple(range(12))
    actual = scores(test, validation=tuple(range(12, IMAGES)))
    targets = arrays().targets
    assert targets is not None
    for split, chosen in (("test", [row for row in test if row != 3]), ("validation", list(range(12, IMAGES)))):
        errors = (predicted()[chosen] - targets[chosen]) * SIDE
        np.testing.assert_allclose(actual[split, "mse_pixels"], (errors**2).mean(), rtol=1e-4)
        np.testing.assert_allclose(actual[split, "distance_pixels"], np.hypot(*errors.T).mean(), rtol=1e-4)


def test_the_same_weights_give_the_same_scores() -> None:
    assert scores((1, 2, 4)) == scores((1, 2, 4))


def test_a_split_without_images_has_no_scores() -> None:
    assert {split for split, _ in scores((1, 2))} == {"test"}
    assert scores(()) == {}


def test_the_error_of_images_without_the_structure_is_undefined() -> None:
    assert set(scores((3,)).values()) == {None}


def scored_after_the_others(rank: int, world: int) -> dict[tuple[str, str], float]:
    """Return the scores of the first worker; the others have ended."""
    return scores((1, 2, 4)) if rank == 0 else {}


def test_one_worker_scores_after_the_others_have_ended() -> None:
    assert together(2, scored_after_the_others)[0] == scores((1, 2, 4))
