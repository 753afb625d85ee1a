"""The training loop for all tasks, on one or several workers, resumable after every epoch."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.distributed import (
    broadcast_state,
    contributing,
    divided_among_workers,
    from_first_worker,
    sum_over_workers,
    synchronise_batch_norm,
)
from models.network import Network
from models.optim.average import Average, MovingAverage, refresh_statistics
from models.optim.optimizers import squared_kernels
from models.settings import OptimizerSettings
from models.tasks.base import NETWORK, Batch, Companion, NetworkFactory, Task
from study.config.schema import Link
from study.config.stages import EarlyStopping, Stage
from study.training.checkpoint import Checkpoints, Snapshot
from study.training.loader import DeviceLoader, StageData, WorkerContext
from study.training.optimization import OptimizedModel

NO_STOPPING = EarlyStopping(patience=1)


class Diverged(RuntimeError):  # noqa: N818 - an expected state
    """The loss is not finite."""


@dataclass(kw_only=True)
class Progress:
    """The progress of training, as JSON types."""

    epoch: int = 0
    updates: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    stale: int = 0
    """Epochs since the score exceeded `mark` by more than `min_delta`."""
    mark: float | None = None
    """The score at that epoch: reference for early stopping, so that small improvements add up."""
    seconds: float = field(default=0.0, compare=False)
    """Training time of all attempts."""


@dataclass(kw_only=True)
class Trained:
    """The weights of the best epoch, and the history with one row for each epoch."""

    weights: Mapping[str, Tensor]
    progress: Progress
    history: list[dict[str, float]]
    averaged: Mapping[str, Any]
    """Scores of the averaged weights, as JSON types; empty without weight averaging."""
    earlier_seconds: float
    """Training time of earlier attempts up to the checkpoint that this one resumed."""


class TrainingLoop:
    """Trains a network on a task, together with the companions of the task, if any.

    `another_network` makes further networks with the same initial weights, for tasks that train several.
    """

    def __init__(
        self, network: Network, task: Task, settings: Stage, link: Link, data: StageData, *, seed: int,
        context: WorkerContext, another_network: NetworkFactory | None = None,
    ) -> None:  # fmt: skip
        self.network, self.task, self.settings, self.link = network, task, settings, link
        per_epoch = data.training.updates_per_epoch
        self.updates = settings.steps or (settings.epochs or 0) * per_epoch
        self.epochs = math.ceil(self.updates / per_epoch)
        self.seed, self.context, self.loader = seed, context, DeviceLoader(data, context, updates=self.updates)
        self.models = {NETWORK: self._optimized_model(network, settings.optimizer)}
        network.freeze(link.freeze, keep_dropout=link.keep_dropout)
        self.networks = [network]
        self.joint: dict[str, OptimizedModel] = {}
        self.untrained: dict[str, nn.Module] = {}
        self.kept: nn.Module = network
        for name, companion in task.companions(network, self._recorded(another_network)).items():
            self._add(name, companion)
            if name == task.kept_module:
                self.kept = companion.module
        for other in self.networks[1:]:
            other.freeze(link.freeze, keep_dropout=link.keep_dropout)
        self.progress = Progress()
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        average = settings.average
        self.average = MovingAverage(average.decay) if average is not None and average.name == "ema" else Average()
        self.averaged: dict[str, Any] = {}

    def _recorded(self, another_network: NetworkFactory | None) -> NetworkFactory | None:
        """Return a factory that adds what it makes to the networks of the stage."""
        if another_network is None:
            return None

        def make() -> Network:
            self.networks.append(another_network())
            return self.networks[-1]

        return make

    def _add(self, name: str, companion: Companion) -> None:
        if companion.trained == "never":
            self.untrained[name] = self._placed(companion.module)
            return
        group = self.models if companion.trained == "apart" else self.joint
        group[name] = self._optimized_model(companion.module, companion.optimizer or self.settings.optimizer)

    def _placed(self, module: nn.Module) -> nn.Module:
        """Move a module to the device, equal on all workers."""
        synchronise_batch_norm(module.to(self.context.device))
        broadcast_state(module)
        if self.context.compiles:
            module.compile()
        return module

    def _optimized_model(self, network: nn.Module, optimizer: OptimizerSettings) -> OptimizedModel:
        return OptimizedModel(
            self._placed(network), optimizer, self.settings.schedule, updates=self.updates,
            clip_norm=self.settings.clip_norm,
        )  # fmt: skip

    @property
    def _optimized_models(self) -> Mapping[str, OptimizedModel]:
        """Return all modules that are trained, by name."""
        return self.models | self.joint

    def run(self, checkpoints: Checkpoints) -> Trained:
        """Train to the end, from the latest checkpoint on. Raises `Diverged`."""
        # Rank 0 reads it: without a shared storage other workers may see an older checkpoint.
        snapshot = from_first_worker(checkpoints.latest if self.context.rank == 0 else None, self.context.device)
        if snapshot is not None:
            self._restore(snapshot)
        earlier, started = self.progress.seconds, time.monotonic()
        while self.progress.epoch < self.epochs and not self._is_stale():
            self._epoch()
            self.progress.seconds = earlier + time.monotonic() - started
            self.context.report({**self.history[-1], "epochs": self.epochs})
            if self.context.rank == 0 and checkpoints.due(self.progress.epoch) and self.progress.epoch < self.epochs:
                checkpoints.save(self.progress.epoch, self._snapshot())
        if isinstance(self.average, MovingAverage):
            weights = self.best or self.average.weights
        else:
            if self.average.count:
                self._take_average()
            weights = self.best or {name: tensor.detach() for name, tensor in self.kept.state_dict().items()}
        return Trained(
            weights=weights, progress=self.progress, history=self.history, averaged=self.averaged,
            earlier_seconds=earlier,
        )  # fmt: skip

    def _epoch(self) -> None:
        epoch = self.progress.epoch
        # Each epoch is seeded, so that dropout and noise do not depend on where a run was resumed.
        torch.manual_seed(_epoch_seed(self.seed, epoch, self.context.rank))
        if self.link.unfreeze_after is not None and epoch >= self.link.unfreeze_after:
            for network in self.networks:
                network.unfreeze(self.link.freeze)
        average = self.settings.average
        is_averaged = average is not None and average.includes(epoch, self.epochs)
        if average is not None and average.lr is not None and is_averaged:
            for model in self._optimized_models.values():
                if model.network in self.networks:
                    model.hold_rate(average.lr)
        losses = self._train(epoch)
        with self.average.in_validation(self.network):
            scores = self._validate()
            self.progress.epoch = epoch + 1
            if self.loader.validates:
                self._update_best(scores)
        for model in self._optimized_models.values():
            model.after_epoch(scores.get("loss", math.nan))
        if is_averaged:
            self.average.add(self.network)
        row = {"epoch": epoch + 1, "updates": self.progress.updates, **losses, "lr": self.models[NETWORK].rate}
        self.history.append(row | {f"val/{name}": value for name, value in scores.items()})

    def _train(self, epoch: int) -> Mapping[str, float]:
        """Train for one epoch; return means over the images: the loss of each network, and what the task reports.

        A mean is NaN if a network was not updated, or a value never reported.
        """
        for model in self._optimized_models.values():
            model.network.train()
        losses = _EpochMeans(self.models, self.context.device)
        reported = _EpochMeans(self.task.reports, self.context.device)
        for parts in self.loader.training(epoch, self.progress.updates):
            if self.progress.updates >= self.updates:
                break
            size = sum(part.size for part in parts)
            for name, loss in self._update_networks(parts, size):
                losses.add(name, loss, size)
            for name, value in self.task.reported().items():
                reported.add(name, value.double(), size)
            self.progress.updates += 1
            self.task.after_update(self.network, self.progress.updates, self.updates)
            self.average.after_update(self.network)
        for name, mean in losses.means.items():
            if losses.images[name] and not math.isfinite(mean):
                label = "training loss" if name == NETWORK else f"{name}'s loss"
                raise Diverged(
                    f"the {label} is {mean} in epoch {epoch + 1}; allowed: finite; lower optimizer.lr, set clip_norm "
                    "or use precision: float32"
                )
        means = {_loss_name(name): mean for name, mean in losses.means.items()}
        return means | {f"train/{name}": mean for name, mean in reported.means.items()}

    def _update_networks(self, parts: Sequence[Batch], size: int) -> Iterator[tuple[str, Tensor]]:
        """Update the networks on one batch, given in parts; yield the name of each updated network and its loss."""
        updates_by_part = [self.task.updates(self.network, part) for part in parts]
        while True:
            name, losses, updated = "", list[Tensor](), list[OptimizedModel]()
            for part, updates in zip(parts, updates_by_part, strict=True):
                with contributing(part.counts):
                    with self._precision():  # the backward pass runs outside of autocast, as torch recommends
                        update = next(updates, None)
                        if update is None:
                            return
                        loss = update.loss * (part.size / size)
                        if update.network_name == NETWORK and self.settings.l2 and not losses:
                            squares = torch.stack([squared_kernels(network) for network in self.networks]).sum()
                            loss = loss + divided_among_workers(self.settings.l2 * squares)
                    if not losses:
                        name = update.network_name
                        updated = [self.models[name], *(self.joint.values() if name == NETWORK else ())]
                        for model in updated:
                            model.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach().double())
            for model in updated:
                model.step()
            yield name, torch.stack(losses).sum()

    def _take_average(self) -> None:
        """Replace the best weights by the averaged ones, and recompute their batch-norm statistics."""
        self.average.put_into(self.network)
        torch.manual_seed(_epoch_seed(self.seed, self.epochs, self.context.rank))
        parts = self.loader.training_parts(self.epochs)
        refresh_statistics(self.network, (self.task.network_input(self.network, part) for part in parts))
        scores = self._validate()
        if scores:
            monitor = self.task.monitor
            self.progress.best_score = None if monitor is None else _defined_or_none(scores[monitor])
            self.averaged = _to_json(scores)
        self.progress.best_epoch = self.progress.epoch
        self.best = {}

    @torch.no_grad()
    def _validate(self) -> Mapping[str, float]:
        if not self.loader.validates:
            return {}
        for model in self._optimized_models.values():
            model.network.eval()
        total: Tensor | None = None
        for batch in self.loader.validation():
            with contributing(batch.counts), self._precision():
                statistics = self.task.statistics(self.kept, batch)
            counted = statistics if batch.counts else torch.zeros_like(statistics)
            total = counted if total is None else total + counted
        return {} if total is None else self.task.scores(sum_over_workers(total))

    def _update_best(self, scores: Mapping[str, float]) -> None:
        """Keep the weights of the best epoch; an undefined score is worse than all others."""
        if self.task.monitor is None:
            return
        score, progress = scores[self.task.monitor], self.progress
        defined_score = _defined_or_none(score)
        progress.stale += 1
        if self._gain(score, progress.mark) > (self.settings.early_stopping or NO_STOPPING).min_delta:
            progress.stale, progress.mark = 0, defined_score
        if self._gain(score, progress.best_score) > 0:
            progress.best_epoch, progress.best_score = progress.epoch, defined_score
            self.best = {name: tensor.detach().clone() for name, tensor in self.kept.state_dict().items()}

    def _gain(self, score: float, reference: float | None) -> float:
        return math.inf if reference is None else (reference - score if self.task.minimise else score - reference)

    def _is_stale(self) -> bool:
        stopping = self.settings.early_stopping
        return stopping is not None and self.loader.validates and self.progress.stale >= stopping.patience

    def _precision(self) -> torch.autocast:
        enabled = self.settings.precision == "bf16"
        return torch.autocast(self.context.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _snapshot(self) -> Snapshot:
        parts: dict[str, Mapping[str, Tensor]] = {"best": self.best, "average": self.average.weights}
        states: dict[str, Any] = {}
        for name, model in self._optimized_models.items():
            tensors, states[name] = model.state()
            parts |= {f"{name}-{part}": group for part, group in tensors.items()}
        parts |= {f"{name}-weights": module.state_dict() for name, module in self.untrained.items()}
        return Snapshot(
            parts=parts,
            numbers={
                "progress": asdict(self.progress),
                "history": [_to_json(row) for row in self.history],
                "players": states,
                "averaged": self.average.count,
            },
        )

    def _restore(self, snapshot: Snapshot) -> None:
        numbers, parts, device = snapshot.numbers, snapshot.parts, self.context.device
        for name, model in self._optimized_models.items():
            model_parts = {
                key.removeprefix(f"{name}-"): group for key, group in parts.items() if key.startswith(f"{name}-")
            }
            model.restore(model_parts, numbers["players"][name])
        for name, module in self.untrained.items():
            module.load_state_dict(dict(parts[f"{name}-weights"]))
        self.progress = Progress(**numbers["progress"])
        self.history = [_from_json(row) for row in numbers["history"]]
        self.best = {name: tensor.to(device) for name, tensor in parts["best"].items()}
        self.average.weights = {name: tensor.to(device) for name, tensor in parts["average"].items()}
        self.average.count = numbers["averaged"]


class _EpochMeans:
    """Means of named values over the images of an epoch; they stay on the device until they are read."""

    def __init__(self, names: Iterable[str], device: torch.device) -> None:
        self._totals = {name: torch.zeros((), dtype=torch.float64, device=device) for name in names}
        self.images = dict.fromkeys(self._totals, 0)
        """Number of images by name."""

    def add(self, name: str, value: Tensor, images: int) -> None:
        """Add the value of a batch of some number of images."""
        self._totals[name] += value * images
        self.images[name] += images

    @property
    def means(self) -> Mapping[str, float]:
        """Return the means, NaN for values without images."""
        return {
            name: float(total) / self.images[name] if self.images[name] else math.nan
            for name, total in self._totals.items()
        }


def _defined_or_none(score: float) -> float | None:
    return None if math.isnan(score) else score


def _loss_name(network_name: str) -> str:
    return "train/loss" if network_name == NETWORK else f"train/{network_name}_loss"


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    return (seed * 1_000_003 + epoch) * 1_009 + rank


def _to_json(row: Mapping[str, float]) -> dict[str, Any]:
    return {name: None if math.isnan(value) else value for name, value in row.items()}


def _from_json(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in row.items()}
