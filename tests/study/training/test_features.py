"""Feature maps of frozen encoders: equal to those of the network, computed once for each image."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from datasets.loading.prepare import Prepared, prepared
from datasets.settings import ImageSettings
from datasets.source import Index
from models.build import Blueprint, build
from models.network import Network
from study.config.schema import Checkpoint
from study.planning.dataset_view import DatasetView
from study.planning.graph import Plan
from study.store.store import Store
from study.training import features, train_stage
from study.training.features import CachedFeatures
from study.training.job import RuntimeContext, StageJob, stage_job
from study.training.loader import WorkerContext, to_images
from study.training.train_stage import open_setup, run_stage
from tests.support.tiny import planned, tiny

CPU = torch.device("cpu")
IMAGE = ImageSettings(size=64, channels=1)
ROWS = np.array([3, 0, 11])
FROZEN = ["classify", {"stage": "segment", "freeze": ["encoder"]}]
SMALL: dict[str, Any] = {"stages.classify.epochs": 1, "stages.segment.steps": 8, "pathways.one_step": FROZEN}


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> DatasetView:
    return planned(tiny(), tmp_path_factory.mktemp("views")).views["hospital"]


@pytest.fixture(scope="module")
def arrays(view: DatasetView, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    cache = tmp_path_factory.mktemp("prepared")
    return prepared(view.source, view.index, "mask", IMAGE, structure=None, cache=cache)


def made(architecture: str | None = "linear", backbone: str = "resnet18", seed: int = 1) -> Network:
    torch.manual_seed(seed)
    return build(Blueprint(architecture=architecture, backbone=backbone, channels=1, outputs=1)).eval()


@contextmanager
def encoded_images(network: Network) -> Iterator[list[int]]:
    """Collect the sizes of the batches that the encoder gets."""
    sizes: list[int] = []
    handle = network.encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    try:
        yield sizes
    finally:
        handle.remove()


def cached(network: Network, arrays: Prepared, index: Index, cache: Path) -> CachedFeatures:
    return CachedFeatures(network, arrays, index, IMAGE, cache=cache)


@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [("linear", "resnet18"), ("linear", "tu-vit_tiny_patch16_224"), ("mlp", "mit_b0"), ("unet", "resnet18"),
     ("deeplabv3plus", "resnet18"), ("dpt", "tu-vit_tiny_patch16_224"), ("xnet", "own"), (None, "resnet18")],
)  # fmt: skip
def test_logits_from_cached_features_are_those_of_the_images(
    architecture: str | None, backbone: str, arrays: Prepared, view: DatasetView, tmp_path: Path
) -> None:
    network = made(architecture, backbone)
    read = cached(network, arrays, view.index, tmp_path).reader(range(16))
    assert read is not None
    with encoded_images(network) as sizes, torch.no_grad():
        logits = network(read(ROWS, CPU))
        assert not sizes
        images = to_images(torch.from_numpy(arrays.images[ROWS]), CPU)
        torch.testing.assert_close(logits, network(images), rtol=1e-5, atol=1e-5)


def test_only_the_maps_that_the_decoder_uses_are_kept(arrays: Prepared, view: DatasetView, tmp_path: Path) -> None:
    cached(made("linear"), arrays, view.index, tmp_path).reader(range(2))
    (entry,) = (path for path in (tmp_path / "prepared").iterdir() if path.is_dir())
    assert {file.name for file in entry.iterdir()} == {"map5.npy", "ready.npy"}


def test_each_image_is_encoded_once_for_all_networks_with_the_encoder(
    arrays: Prepared, view: DatasetView, tmp_path: Path
) -> None:
    first, again, other = made(seed=1), made("mlp", seed=1), made(seed=2)
    counts = []
    for network, rows in ((first, [0, 1, 2]), (made(seed=1), [2, 1, 4, 4]), (made(seed=1), [4, 0]), (other, [0])):
        with encoded_images(network) as sizes:
            cached(network, arrays, view.index, tmp_path).reader(rows)
        counts.append(sum(sizes) - 1)  # one image shows the shapes
    assert counts == [3, 1, 0, 1]
    assert torch.equal(first.encoder.conv1.weight, again.encoder.conv1.weight)  # type: ignore[union-attr, arg-type]


def test_features_depend_on_statistics_of_batch_norm(arrays: Prepared, view: DatasetView, tmp_path: Path) -> None:
    network = made()
    cached(network, arrays, view.index, tmp_path).reader([0])
    network.encoder.bn1.running_mean += 1  # type: ignore[union-attr, operator]
    with encoded_images(network) as sizes:
        cached(network, arrays, view.index, tmp_path).reader([0])
    assert sum(sizes) == 2


def test_an_interrupted_computation_is_continued(
    arrays: Prepared, view: DatasetView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BATCH", 2)
    network, passes = made(), []

    def interrupt(*_: object) -> None:
        passes.append(1)
        if len(passes) == 4:
            raise KeyboardInterrupt

    handle = network.encoder.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        cached(network, arrays, view.index, tmp_path).reader(range(8))
    handle.remove()
    with encoded_images(network) as sizes:
        read = cached(network, arrays, view.index, tmp_path).reader(range(8))
    assert sizes == [1, 2, 2]
    assert read is not None
    for row in range(8):
        images = to_images(torch.from_numpy(arrays.images[[row]]), CPU)
        expected = network.encode(images).features[-1]
        torch.testing.assert_close(read(np.array([row]), CPU).features[-1], expected, rtol=1e-4, atol=1e-4)


def test_several_workers_share_the_work(arrays: Prepared, view: DatasetView, tmp_path: Path) -> None:
    def work(_: int) -> int:
        network = build(Blueprint(architecture="linear", backbone="resnet18", channels=1, outputs=1)).eval()
        network.load_state_dict(weights)
        with encoded_images(network) as sizes:
            cached(network, arrays, view.index, tmp_path).reader(range(16))
        return sum(sizes) - 1

    weights = made().state_dict()
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 16


def test_an_entry_that_was_removed_is_computed_again(arrays: Prepared, view: DatasetView, tmp_path: Path) -> None:
    network = made()
    kept = cached(network, arrays, view.index, tmp_path)
    read = kept.reader([0])
    (entry,) = (path for path in (tmp_path / "prepared").iterdir() if path.is_dir())
    before = kept.reader([0])
    assert read is not None
    assert before is not None
    entry.rename(tmp_path / "removed")
    torch.testing.assert_close(read(np.array([0]), CPU).features[-1], before(np.array([0]), CPU).features[-1])
    with encoded_images(network) as sizes:
        kept.reader([0])
    assert sizes == [1]


def test_large_maps_are_not_kept(
    arrays: Prepared, view: DatasetView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, limit in (("BYTES_PER_IMAGE", 512 * 2 * 2 * 4), ("BYTES", 16 * 512 * 2 * 2 * 4)):
        with monkeypatch.context() as patch:
            patch.setattr(features, name, limit)
            assert cached(made(), arrays, view.index, tmp_path).reader([0]) is None
            patch.setattr(features, name, limit + 16)
            assert cached(made(), arrays, view.index, tmp_path).reader([0]) is not None


def last_stage(changes: Mapping[str, Any], cache: Path, pathway: str = "one_step") -> tuple[Plan, list[StageJob]]:
    plan = planned(tiny({**SMALL, **changes}), cache)
    row = next(one for one in plan.replicates if plan.arms[one.arm].factors["pathway"] == pathway)
    return plan, [stage_job(plan, plan.nodes[digest]) for digest in row.chain]


def runtime(storage: Path, cache: Path, *, caches: bool) -> RuntimeContext:
    checkpoint = Checkpoint(epochs=1, seconds=0)
    return RuntimeContext(storage=storage, cache=cache, cpus=1, checkpoint=checkpoint, caches_features=caches)


def trained(jobs: list[StageJob], storage: Path, cache: Path, *, caches: bool) -> tuple[Store, list[int]]:
    """Train the stages; return the storage, and the sizes of the batches that encoders of the last stage got."""
    sizes: list[int] = []
    encode = Network.encode

    def counting(self: Network, images: torch.Tensor) -> Any:  # noqa: ANN401
        sizes.append(len(images))
        return encode(self, images)

    for job in jobs:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Network, "encode", counting)
            sizes.clear()
            run_stage(job, runtime(storage, cache, caches=caches), WorkerContext(report=lambda _: None))
    return Store(storage), sizes


def numbers(store: Store, job: StageJob) -> list[Any]:
    """Return the history and all score tables of a stage as numbers."""
    rows = []
    for file in sorted(store.stage(job.digest).glob("*.parquet")):
        for row in pq.read_table(file).to_pylist():
            rows.append([value for value in row.values() if isinstance(value, float | int)])
    return rows


LOCALISE = {
    "stages.centre": {"task": "localisation", "data": "clinic", "structure": "heart", "epochs": 2},
    "pathways": {"none": ["segment"], "one_step": ["classify", {"stage": "centre", "freeze": ["encoder"]}, "segment"]},
}
CLASSIFY = {
    "stages.classify.epochs": 3,
    "pathways": {"none": ["segment"], "one_step": [{"stage": "classify", "freeze": ["encoder"]}, "segment"]},
}
COVERING: dict[str, tuple[dict[str, Any], int]] = {
    "segmentation": ({}, 2),
    "deep supervision, averaged weights": (
        {"stages.segment.deep_supervision": True, "stages.segment.average": {"start": 0.5}}, 2),
    "localisation": (LOCALISE, 2),
    "classification": (CLASSIFY, 1),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "stages"), COVERING.values(), ids=COVERING)
def test_a_stage_learns_and_scores_the_same_with_cached_features(
    changes: dict[str, Any], stages: int, tmp_path: Path
) -> None:
    _, jobs = last_stage(changes, tmp_path / "cache")
    jobs = jobs[:stages]
    with_cache, few = trained(jobs, tmp_path / "with", tmp_path / "cache", caches=True)
    few = list(few)
    without, many = trained(jobs, tmp_path / "without", tmp_path / "cache", caches=False)
    expected = numbers(without, jobs[-1])
    assert len(expected) > 1
    for first, second in zip(numbers(with_cache, jobs[-1]), expected, strict=True):
        assert first == pytest.approx(second, rel=1e-5, abs=1e-5, nan_ok=True)
    assert sum(size for size in few if size > 1) <= 16 < sum(many)  # trial passes have one image


@pytest.mark.parametrize(
    "changes",
    [
        {"stages.segment.augment": {"flip": 0.5}},
        {"stages.segment.augment": {"cutmix": 0.5}},
        {"stages.segment.precision": "bf16"},
        {"stages.segment.image": {"fit": "patch"}},
        {"stages.segment.task": "adversarial"},
        {"pathways.one_step": ["classify", "segment"]},
        {"pathways.one_step": ["classify", {"stage": "segment", "freeze": ["encoder.stage1"]}]},
        {"pathways.one_step": ["classify", {"stage": "segment", "freeze": ["encoder"], "unfreeze_after": 1}]},
        {"pathways.one_step": ["classify", {"stage": "segment", "freeze": ["encoder"], "keep_dropout": True}]},
    ],
    ids=str,
)
def test_features_that_change_between_epochs_are_not_kept(changes: dict[str, Any], tmp_path: Path) -> None:
    _, jobs = last_stage(changes, tmp_path)
    setup, context = (
        open_setup(jobs[-1], runtime(tmp_path, tmp_path, caches=True)),
        runtime(tmp_path, tmp_path, caches=True),
    )
    assert train_stage._fixed_features(setup, context) is None
    kept = replace(context, caches_features=False)
    _, jobs = last_stage({}, tmp_path)
    setup = open_setup(jobs[-1], context)
    assert train_stage._fixed_features(setup, context) is not None
    assert train_stage._fixed_features(setup, kept) is None
