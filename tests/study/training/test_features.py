"""Feature maps of frozen encoders: equal to those of the network, computed once for each image."""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
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
from models.architectures import ARCHITECTURES
from models.build import Blueprint, build
from models.network import EncodedImages, Network
from study.config.schema import Checkpoint
from study.planning.dataset_view import DatasetView
from study.planning.graph import Plan
from study.store.store import Store
from study.training import features, train_stage
from study.training.features import CachedFeatures
from study.training.job import RuntimeContext, StageJob, stage_job
from study.training.loader import FeatureReader, WorkerContext, to_images
from study.training.train_stage import open_setup, run_stage
from tests.support.tiny import planned, tiny

CPU = torch.device("cpu")
IMAGE = ImageSettings(size=64, channels=1)
FROZEN = ["classify", {"stage": "segment", "freeze": ["encoder"]}]
SMALL: dict[str, Any] = {"stages.classify.epochs": 1, "stages.segment.steps": 24, "pathways.one_step": FROZEN}


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> DatasetView:
    return planned(tiny(), tmp_path_factory.mktemp("views")).views["hospital"]


@pytest.fixture(scope="module")
def arrays(view: DatasetView, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    cache = tmp_path_factory.mktemp("prepared")
    return prepared(view.source, view.index, "mask", IMAGE, structure=None, cache=cache)


def network_of(architecture: str | None = "linear", backbone: str = "resnet18", seed: int = 1) -> Network:
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


def reader(network: Network, arrays: Prepared, index: Index, cache: Path, passes: int = 1000) -> FeatureReader | None:
    return CachedFeatures(network, arrays, index, "mask", IMAGE, cache=cache).reader(passes=passes)


def read(network: Network, arrays: Prepared, index: Index, cache: Path, rows: Sequence[int]) -> EncodedImages:
    features = reader(network, arrays, index, cache)
    assert features is not None
    return features(np.array(rows))


def entries(cache: Path) -> list[Path]:
    return [path for path in (cache / "prepared").iterdir() if path.is_dir()]


NETWORKS = [
    *((name, "own" if spec.own_encoder else "tu-vit_tiny_patch16_224" if spec.features == "plain" else "resnet18")
      for name, spec in ARCHITECTURES.items() if name != "pan"),  # which requires larger images
    ("linear", "tu-vit_tiny_patch16_224"), ("mlp", "mit_b0"), ("segnet", "vgg16_bn"), (None, "resnet18"),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "backbone"), NETWORKS)
def test_logits_from_cached_features_are_those_of_the_images(
    architecture: str | None, backbone: str, arrays: Prepared, view: DatasetView, tmp_path: Path
) -> None:
    network = network_of(architecture, backbone)
    first = range(features.BATCH)  # encoded together in both cases
    with torch.no_grad():
        encoded = read(network, arrays, view.index, tmp_path, first)
        with encoded_images(network) as sizes:
            logits = network(encoded)
        assert not sizes
        assert torch.equal(logits, network(to_images(torch.from_numpy(arrays.images[list(first)]), CPU)))


def test_only_maps_used_by_the_decoder_are_cached(arrays: Prepared, view: DatasetView, tmp_path: Path) -> None:
    read(network_of("linear"), arrays, view.index, tmp_path, [0])
    (entry,) = entries(tmp_path)
    (file,) = entry.iterdir()
    assert np.load(file).shape == (16, 512 * 2 * 2)


def test_each_image_is_encoded_once_for_all_networks_with_the_encoder(
    arrays: Prepared, view: DatasetView, tmp_path: Path
) -> None:
    counts = []
    for network in (network_of(seed=1), network_of(seed=1), network_of(seed=2)):
        with encoded_images(network) as sizes:
            for rows in ([0, 1, 2], [2, 15]):
                read(network, arrays, view.index, tmp_path, rows)
        counts.append([size for size in sizes if size > 2])  # two images determine the shapes
    assert counts == [[8, 8], [], [8, 8]]


def test_chunks_have_only_images_with_the_annotation_and_do_not_depend_on_later_images(
    arrays: Prepared, view: DatasetView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "CHUNK", 4)
    digests = view.index.annotation_digests["masks"]
    kinds = view.index.annotation_digests
    few = replace(view.index, annotation_digests={**kinds, "masks": ["", *digests[1:9], *[""] * 7]})
    network = network_of()
    with encoded_images(network) as sizes:
        read(network, arrays, few, tmp_path, [1, 8])
    assert sum(sizes) == 2 + 8
    more = replace(few, annotation_digests={**kinds, "masks": ["", *digests[1:]]})
    with encoded_images(network) as sizes:
        read(network, arrays, more, tmp_path, [1, 8])
    assert sum(sizes) == 2


def test_features_depend_on_statistics_of_batch_norm(arrays: Prepared, view: DatasetView, tmp_path: Path) -> None:
    network = network_of()
    before = read(network, arrays, view.index, tmp_path, [0])
    dict(network.encoder.named_buffers())["bn1.running_mean"] += 1
    after = read(network, arrays, view.index, tmp_path, [0])
    assert not torch.equal(before.features[-1], after.features[-1])


def test_an_interrupted_computation_is_repeated(arrays: Prepared, view: DatasetView, tmp_path: Path) -> None:
    network, passes = network_of(), []

    def interrupt(*_: object) -> None:
        passes.append(1)
        if len(passes) == 3:
            raise KeyboardInterrupt

    handle = network.encoder.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        read(network, arrays, view.index, tmp_path, [0])
    handle.remove()
    assert not entries(tmp_path)
    encoded = read(network, arrays, view.index, tmp_path, range(8))
    images = to_images(torch.from_numpy(arrays.images[:8].copy()), CPU)
    assert torch.equal(encoded.features[-1], network.encode(images).features[-1])


def test_several_processes_share_the_work(arrays: Prepared, view: DatasetView, tmp_path: Path) -> None:
    def work(_: int) -> int:
        network = build(Blueprint(architecture="linear", backbone="resnet18", channels=1, outputs=1)).eval()
        network.load_state_dict(weights)
        with encoded_images(network) as sizes:
            read(network, arrays, view.index, tmp_path, range(16))
        return sum(sizes) - 2

    weights = network_of().state_dict()
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 16


def test_a_removed_entry_is_computed_again(arrays: Prepared, view: DatasetView, tmp_path: Path) -> None:
    network = network_of()
    features_of = reader(network, arrays, view.index, tmp_path)
    assert features_of is not None
    before = features_of(np.array([3])).features[-1]
    (entry,) = entries(tmp_path)
    entry.rename(tmp_path / "removed")
    assert torch.equal(features_of(np.array([3])).features[-1], before)
    assert torch.equal(read(network, arrays, view.index, tmp_path, [3]).features[-1], before)


def test_features_are_computed_again_on_a_full_disk(
    arrays: Prepared, view: DatasetView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of()
    expected = read(network, arrays, view.index, tmp_path / "roomy", [3, 4]).features[-1]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "posix_fallocate", full)
    encoded = read(network, arrays, view.index, tmp_path, [3, 4])
    torch.testing.assert_close(encoded.features[-1], expected, rtol=1e-4, atol=1e-4)
    assert not entries(tmp_path)


def test_large_maps_are_not_cached(
    arrays: Prepared, view: DatasetView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 512 * 2 * 2 * 4
    for name, limit, larger in (
        ("BYTES_PER_IMAGE", {"cpu": size - 1}, {"cpu": size}), ("BYTES", 16 * size - 1, 16 * size)
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(features, name, limit)
            assert reader(network_of(), arrays, view.index, tmp_path) is None
            patch.setattr(features, name, larger)
            assert reader(network_of(), arrays, view.index, tmp_path) is not None


def test_a_stage_that_encodes_few_images_does_not_use_the_cache(
    arrays: Prepared, view: DatasetView, tmp_path: Path
) -> None:
    assert reader(network_of(), arrays, view.index, tmp_path, passes=15) is None
    assert reader(network_of(), arrays, view.index, tmp_path, passes=16) is not None


def test_files_are_closed_when_many_are_open(
    arrays: Prepared, view: DatasetView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "CHUNK", 1)
    monkeypatch.setattr(features, "MAX_OPEN", 3)
    network = network_of()
    encoded = read(network, arrays, view.index, tmp_path, [5, 0, 9, 14, 2, 5])
    assert torch.equal(encoded.features[-1][0], encoded.features[-1][5])
    assert len(entries(tmp_path)) == 5


def last_stage(changes: Mapping[str, Any], cache: Path, pathway: str = "one_step") -> tuple[Plan, list[StageJob]]:
    plan = planned(tiny({**SMALL, **changes}), cache)
    row = next(replicate for replicate in plan.replicates if plan.arms[replicate.arm].factors["pathway"] == pathway)
    return plan, [stage_job(plan, plan.nodes[digest]) for digest in row.chain]


def runtime(storage: Path, cache: Path, *, caches: bool) -> RuntimeContext:
    checkpoint = Checkpoint(epochs=1, seconds=0)
    return RuntimeContext(storage=storage, cache=cache, cpus=1, checkpoint=checkpoint, caches_features=caches)


def trained(jobs: list[StageJob], storage: Path, cache: Path, *, caches: bool) -> tuple[Store, list[int]]:
    """Train the stages; return the storage, and the sizes of the batches encoded in the last stage."""
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
def test_a_stage_trains_and_scores_the_same_with_cached_features(
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
    assert sum(size for size in few if size > 2) <= 16 < sum(many)  # trial passes have one or two images


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
def test_features_that_change_between_epochs_are_not_cached(changes: dict[str, Any], tmp_path: Path) -> None:
    _, jobs = last_stage(changes, tmp_path)
    setup, context = (
        open_setup(jobs[-1], runtime(tmp_path, tmp_path, caches=True)),
        runtime(tmp_path, tmp_path, caches=True),
    )
    assert train_stage._fixed_features(setup, context) is None
    uncached = replace(context, caches_features=False)
    _, jobs = last_stage({}, tmp_path)
    setup = open_setup(jobs[-1], context)
    assert train_stage._fixed_features(setup, context) is not None
    assert train_stage._fixed_features(setup, uncached) is None
