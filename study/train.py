"""The one training loop: any task, one process or one of several workers, resumable after any epoch."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from datasets.batches import Batches
from models.network import Network
from models.optimize import flatten_state, make_optimizer, make_schedule, restore_state
from models.tasks.base import Batch, Task
from study.checkpoint import Checkpoints, Snapshot
from study.spec import EarlyStopping, Link, Stage

Report = Callable[[Mapping[str, float]], None]


CPU = torch.device("cpu")
NO_STOPPING = EarlyStopping(patience=1)


class Diverged(RuntimeError):  # noqa: N818 - an expected state
    """The loss is no number any more."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where this process stands among the workers of a stage, and whom it tells how training goes."""

    report: Report
    rank: int = 0
    world: int = 1
    device: torch.device = CPU


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


@dataclass(kw_only=True)
class Trained:
    """The weights of the best epoch and how training went, one row of `history` an epoch."""

    weights: Mapping[str, Tensor]
    progress: Progress
    history: list[dict[str, float]]


class Loop:
    """Trains one network on one task. `validation` None: nothing validates, the last epoch is taken."""

    def __init__(
        self, network: Network, task: Task, settings: Stage, link: Link, *, training: Batches,
        validation: Batches | None, seed: int, context: Context,
    ) -> None:  # fmt: skip
        self.network, self.task, self.settings, self.link = network, task, settings, link
        self.training, self.validation, self.seed, self.context = training, validation, seed, context
        per_epoch = training.updates_per_epoch
        self.updates = settings.steps or (settings.epochs or 0) * per_epoch
        self.epochs = math.ceil(self.updates / per_epoch)
        network.freeze(link.freeze)
        network.to(context.device)
        self.optimizer = make_optimizer(settings.optimizer, network.parameters())
        self.schedule = make_schedule(settings.schedule, self.optimizer, self.updates)
        self.progress = Progress()
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}

    def run(self, checkpoints: Checkpoints) -> Trained:
        """Train to the end, from the latest checkpoint on. Raises `Diverged`."""
        snapshot = checkpoints.latest()
        if snapshot is not None:
            self._restore(snapshot)
        while self.progress.epoch < self.epochs and not self._is_stale():
            self._epoch()
            self.context.report({**self.history[-1], "epochs": self.epochs})
            if self.context.rank == 0 and checkpoints.due(self.progress.epoch) and self.progress.epoch < self.epochs:
                checkpoints.save(self.progress.epoch, self._snapshot())
        weights = self.best or {name: tensor.detach() for name, tensor in self.network.state_dict().items()}
        return Trained(weights=weights, progress=self.progress, history=self.history)

    def _epoch(self) -> None:
        epoch = self.progress.epoch
        # Seeding every epoch anew makes dropout and noise independent of where a run was resumed.
        torch.manual_seed(_mixed(self.seed, epoch, self.context.rank))
        if self.link.unfreeze_after is not None and epoch >= self.link.unfreeze_after:
            self.network.unfreeze(self.link.freeze)
        loss = self._train(epoch)
        scores = self._validate()
        self.progress.epoch = epoch + 1
        self.schedule.after_epoch(scores.get("loss", math.nan))
        if self.validation is not None:
            self._judge(scores)
        rate = self.optimizer.param_groups[0]["lr"]
        row = {"epoch": epoch + 1, "updates": self.progress.updates, "train/loss": loss, "lr": rate}
        self.history.append(row | {f"val/{name}": value for name, value in scores.items()})

    def _train(self, epoch: int) -> float:
        """Return the mean loss over the epoch's images."""
        self.network.train()
        total, images = torch.zeros((), dtype=torch.float64, device=self.context.device), 0
        for batch in self._batches(self.training, epoch, shuffle=True):
            if self.progress.updates >= self.updates:
                break
            with self._precision():
                loss = self.task.loss(self.network, batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.settings.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
            self.optimizer.step()
            self.schedule.after_update()
            self.progress.updates += 1
            total += loss.detach().double() * len(batch.images)
            images += len(batch.images)
        mean = float(total) / max(images, 1)
        if not math.isfinite(mean):
            raise Diverged(
                f"the training loss is {mean} in epoch {epoch + 1}; allowed: finite; lower optimizer.lr, set "
                "clip_norm or use precision: float32"
            )
        return mean

    @torch.no_grad()
    def _validate(self) -> Mapping[str, float]:
        if self.validation is None:
            return {}
        self.network.eval()
        total: Tensor | None = None
        for batch in self._batches(self.validation, 0, shuffle=False):
            with self._precision():
                statistics = self.task.statistics(self.network, batch)
            total = statistics if total is None else total + statistics
        return {} if total is None else self.task.scores(total)

    def _judge(self, scores: Mapping[str, float]) -> None:
        """Keep the best epoch's weights; an undefined score is worse than any."""
        score, progress = scores[self.task.monitor], self.progress
        known = None if math.isnan(score) else score
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
        return stopping is not None and self.validation is not None and self.progress.stale >= stopping.patience

    def _batches(self, batches: Batches, epoch: int, *, shuffle: bool) -> Iterator[Batch]:
        device = self.context.device
        for pixels, target in batches.epoch(epoch, self.context.rank, self.context.world, shuffle=shuffle):
            images = to_images(torch.from_numpy(pixels), device)
            goal = images if target is None else torch.from_numpy(target).to(device, non_blocking=True)
            yield Batch(images=images, target=goal)

    def _precision(self) -> torch.autocast:
        enabled = self.settings.precision == "bf16"
        return torch.autocast(self.context.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _snapshot(self) -> Snapshot:
        tensors, numbers = flatten_state(self.optimizer)
        return Snapshot(
            network=self.network.state_dict(),
            optimizer=tensors,
            best=self.best,
            numbers={
                "progress": asdict(self.progress),
                "history": [_to_json(row) for row in self.history],
                "optimizer": numbers,
                "schedule": self.schedule.state_dict(),
            },
        )

    def _restore(self, snapshot: Snapshot) -> None:
        self.network.load_state_dict(snapshot.network)
        restore_state(self.optimizer, snapshot.optimizer, snapshot.numbers["optimizer"])
        self.schedule.load_state_dict(snapshot.numbers["schedule"])
        self.progress = Progress(**snapshot.numbers["progress"])
        self.history = [_from_json(row) for row in snapshot.numbers["history"]]
        self.best = {name: tensor.to(self.context.device) for name, tensor in snapshot.best.items()}


def to_images(pixels: Tensor, device: torch.device) -> Tensor:
    """Map (N, S, S, channels) bytes to (N, channels, S, S) floats in 0..1 on the device."""
    return pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255.0)


def _mixed(seed: int, epoch: int, rank: int) -> int:
    return (seed * 1_000_003 + epoch) * 1_009 + rank


def _to_json(row: Mapping[str, float]) -> dict[str, Any]:
    return {name: None if math.isnan(value) else value for name, value in row.items()}


def _from_json(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in row.items()}
