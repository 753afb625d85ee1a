"""The one training loop: any task, one process or one of several workers, resumable after any epoch."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.distributed import add, alike, from_first, once, present, synchronised
from models.network import Network
from models.optim.average import Average, refresh_statistics
from models.optim.optimizers import squared_kernels
from models.settings import OptimizerSettings
from models.tasks.base import NETWORK, Batch, Task
from study.config.schema import Link
from study.config.stages import EarlyStopping, Stage
from study.training.checkpoint import Checkpoints, Snapshot
from study.training.loader import DeviceLoader, StageData, WorkerContext
from study.training.optimization import OptimizedModel

NO_STOPPING = EarlyStopping(patience=1)


class Diverged(RuntimeError):  # noqa: N818 - an expected state
    """The loss is no number any more."""


@dataclass(kw_only=True)
class Progress:
    """How far training is; JSON's own types."""

    epoch: int = 0
    updates: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    stale: int = 0
    """Epochs since the score was better than `mark` by more than `min_delta`."""
    mark: float | None = None
    """The score at that epoch: small gains over several epochs add up to one that counts."""
    seconds: float = field(default=0.0, compare=False)
    """Spent on these epochs, by all attempts."""


@dataclass(kw_only=True)
class Trained:
    """The weights of the best epoch and how training went, one row of `history` an epoch."""

    weights: Mapping[str, Tensor]
    progress: Progress
    history: list[dict[str, float]]
    averaged: Mapping[str, Any]
    """Scores of averaged weights, in JSON's own types; none where those of an epoch are kept."""
    earlier_seconds: float
    """Spent by attempts before, on what this one went on from."""


class TrainingLoop:
    """Trains one network on one task, together with the task's rivals where it has any."""

    def __init__(
        self, network: Network, task: Task, settings: Stage, link: Link, material: StageData, *, seed: int,
        context: WorkerContext,
    ) -> None:  # fmt: skip
        self.network, self.task, self.settings, self.link = network, task, settings, link
        self.seed, self.context, self.loader = seed, context, DeviceLoader(material, context)
        per_epoch = material.training.updates_per_epoch
        self.updates = settings.steps or (settings.epochs or 0) * per_epoch
        self.epochs = math.ceil(self.updates / per_epoch)
        self.models = {NETWORK: self._optimized_model(network, settings.optimizer)}
        network.freeze(link.freeze)
        for name, rival in task.adversarial_networks(network.mean.shape[1]).items():
            self.models[name] = self._optimized_model(rival.network, rival.optimizer)
        self.progress = Progress()
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.average = Average()
        self.averaged: dict[str, Any] = {}

    def _optimized_model(self, network: nn.Module, optimizer: OptimizerSettings) -> OptimizedModel:
        synchronised(network.to(self.context.device))
        alike(network)
        if self.context.compiles:
            network.compile()
        return OptimizedModel(
            network, optimizer, self.settings.schedule, updates=self.updates, clip_norm=self.settings.clip_norm
        )

    def run(self, checkpoints: Checkpoints) -> Trained:
        """Train to the end, from the latest checkpoint on. Raises `Diverged`."""
        # The first worker's: on storages without shared folders others may see an older one.
        snapshot = from_first(checkpoints.latest if self.context.rank == 0 else None, self.context.device)
        if snapshot is not None:
            self._restore(snapshot)
        earlier, begun = self.progress.seconds, time.monotonic()
        while self.progress.epoch < self.epochs and not self._is_stale():
            self._epoch()
            self.progress.seconds = earlier + time.monotonic() - begun
            self.context.report({**self.history[-1], "epochs": self.epochs})
            if self.context.rank == 0 and checkpoints.due(self.progress.epoch) and self.progress.epoch < self.epochs:
                checkpoints.save(self.progress.epoch, self._snapshot())
        if self.average.count:
            self._take_average()
        weights = self.best or {name: tensor.detach() for name, tensor in self.network.state_dict().items()}
        return Trained(
            weights=weights, progress=self.progress, history=self.history, averaged=self.averaged,
            earlier_seconds=earlier,
        )  # fmt: skip

    def _epoch(self) -> None:
        epoch = self.progress.epoch
        # Seeding every epoch anew makes dropout and noise independent of where a run was resumed.
        torch.manual_seed(_mixed(self.seed, epoch, self.context.rank))
        if self.link.unfreeze_after is not None and epoch >= self.link.unfreeze_after:
            self.network.unfreeze(self.link.freeze)
        losses = self._train(epoch)
        scores = self._validate()
        self.progress.epoch = epoch + 1
        for model in self.models.values():
            model.after_epoch(scores.get("loss", math.nan))
        if self.loader.validates:
            self._judge(scores)
        if self.settings.average is not None and self.progress.epoch > self.settings.average.start * self.epochs:
            self.average.add(self.network)
        row = {"epoch": epoch + 1, "updates": self.progress.updates, **losses, "lr": self.models[NETWORK].rate}
        self.history.append(row | {f"val/{name}": value for name, value in scores.items()})

    def _train(self, epoch: int) -> Mapping[str, float]:
        """Train for one epoch; return the mean loss of each network over the epoch's images."""
        for model in self.models.values():
            model.network.train()
        totals = {name: torch.zeros((), dtype=torch.float64, device=self.context.device) for name in self.models}
        images = 0
        for parts in self.loader.training(epoch, self.progress.updates):
            if self.progress.updates >= self.updates:
                break
            size = sum(part.size for part in parts)
            for name, loss in self._update_networks(parts, size):
                totals[name] += loss * size
            self.progress.updates += 1
            images += size
        means = {name: float(total) / max(images, 1) for name, total in totals.items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                whose = "training loss" if name == NETWORK else f"{name}'s loss"
                raise Diverged(
                    f"the {whose} is {mean} in epoch {epoch + 1}; allowed: finite; lower optimizer.lr, set clip_norm "
                    "or use precision: float32"
                )
        return {_loss_name(name): mean for name, mean in means.items()}

    def _update_networks(self, parts: Sequence[Batch], size: int) -> Iterator[tuple[str, Tensor]]:
        """Update the networks on one batch, given in parts; yield the name of each updated network and its loss."""
        updates_by_part = [self.task.updates(self.network, part) for part in parts]
        while True:
            name, losses = "", list[Tensor]()
            for part, updates in zip(parts, updates_by_part, strict=True):
                with present(part.counts):
                    with self._precision():  # its backward pass runs outside, as torch advises
                        update = next(updates, None)
                        if update is None:
                            return
                        loss = update.loss * (part.size / size)
                        if update.network_name == NETWORK and self.settings.l2 and not losses:
                            loss = loss + once(self.settings.l2 * squared_kernels(self.network))
                    if not losses:
                        name = update.network_name
                        self.models[name].zero_grad()
                    self.models[name].backward(loss)
                losses.append(loss.detach().double())
            self.models[name].step()
            yield name, torch.stack(losses).sum()

    def _take_average(self) -> None:
        """Put the averaged weights in place of the best epoch's, with statistics of their own."""
        self.average.put_into(self.network)
        torch.manual_seed(_mixed(self.seed, self.epochs, self.context.rank))
        refresh_statistics(self.network, self.loader.shown(self.epochs))
        scores = self._validate()
        if scores:
            self.progress.best_score = _known(scores[self.task.monitor])
            self.averaged = _to_json(scores)
        self.progress.best_epoch = self.progress.epoch
        self.best = {}

    @torch.no_grad()
    def _validate(self) -> Mapping[str, float]:
        if not self.loader.validates:
            return {}
        self.network.eval()
        total: Tensor | None = None
        for batch in self.loader.validation():
            with present(batch.counts), self._precision():
                statistics = self.task.statistics(self.network, batch)
            own = statistics if batch.counts else torch.zeros_like(statistics)
            total = own if total is None else total + own
        return {} if total is None else self.task.scores(add(total))

    def _judge(self, scores: Mapping[str, float]) -> None:
        """Keep the best epoch's weights; an undefined score is worse than any."""
        score, progress = scores[self.task.monitor], self.progress
        known = _known(score)
        progress.stale += 1
        if self._gain(score, progress.mark) > (self.settings.early_stopping or NO_STOPPING).min_delta:
            progress.stale, progress.mark = 0, known
        if self._gain(score, progress.best_score) > 0:
            progress.best_epoch, progress.best_score = progress.epoch, known
            self.best = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def _gain(self, score: float, over: float | None) -> float:
        return math.inf if over is None else (over - score if self.task.minimise else score - over)

    def _is_stale(self) -> bool:
        stopping = self.settings.early_stopping
        return stopping is not None and self.loader.validates and self.progress.stale >= stopping.patience

    def _precision(self) -> torch.autocast:
        enabled = self.settings.precision == "bf16"
        return torch.autocast(self.context.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _snapshot(self) -> Snapshot:
        parts: dict[str, Mapping[str, Tensor]] = {"best": self.best, "average": self.average.weights}
        states: dict[str, Any] = {}
        for name, model in self.models.items():
            tensors, states[name] = model.state()
            parts |= {f"{name}-{part}": group for part, group in tensors.items()}
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
        for name, model in self.models.items():
            own = {key.removeprefix(f"{name}-"): group for key, group in parts.items() if key.startswith(f"{name}-")}
            model.restore(own, numbers["players"][name])
        self.progress = Progress(**numbers["progress"])
        self.history = [_from_json(row) for row in numbers["history"]]
        self.best = {name: tensor.to(device) for name, tensor in parts["best"].items()}
        self.average.weights = {name: tensor.to(device) for name, tensor in parts["average"].items()}
        self.average.count = numbers["averaged"]


def _known(score: float) -> float | None:
    return None if math.isnan(score) else score


def _loss_name(network_name: str) -> str:
    return "train/loss" if network_name == NETWORK else f"train/{network_name}_loss"


def _mixed(seed: int, epoch: int, rank: int) -> int:
    return (seed * 1_000_003 + epoch) * 1_009 + rank


def _to_json(row: Mapping[str, float]) -> dict[str, Any]:
    return {name: None if math.isnan(value) else value for name, value in row.items()}


def _from_json(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in row.items()}
