"""Where finished stages live, addressed by digest and shared by all studies under one storage folder."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from study.files import damage, hash_of, read_json, seal, write_json
from study.layout import PLAN

if TYPE_CHECKING:
    import pyarrow as pa

WEIGHTS = "weights.safetensors"
SEAL = "seal.json"
RECORD = "stage.yaml"


class Damaged(RuntimeError):  # noqa: N818 - a state of the store, not a bug
    """A published stage whose files are not what was written. `digest` names it."""

    def __init__(self, digest: str, what: str) -> None:
        self.digest = digest
        super().__init__(f"stage {digest}: {what}")


@dataclass(frozen=True)
class Store:
    """`stages/<digest>/` finished, `work/<digest>/<attempt>/` under way, `studies/<name>/` derived."""

    root: Path

    def stage(self, digest: str) -> Path:
        """Return the folder of a finished stage."""
        return self.root / "stages" / digest

    def work(self, digest: str) -> Path:
        """Return the folder of a stage's attempts."""
        return self.root / "work" / digest

    def study(self, name: str) -> Path:
        """Return the folder of a study."""
        return self.root / "studies" / name

    def finished(self) -> frozenset[str]:
        """Return the digests of all published stages, from one listing."""
        try:
            with os.scandir(self.root / "stages") as entries:
                return frozenset(entry.name for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()

    def is_finished(self, digest: str) -> bool:
        """Return whether a stage is published."""
        return (self.stage(digest) / SEAL).is_file()

    def scored(self, digest: str, key: str) -> bool:
        """Return whether a target stage has these scores."""
        return self.images(digest, key).is_file() and self.scores(digest, key).is_file()

    def scores(self, digest: str, key: str) -> Path:
        """Return the file of pixel counts."""
        return self.stage(digest) / f"scores-{key}.parquet"

    def images(self, digest: str, key: str) -> Path:
        """Return the file of image-wise calibration."""
        return self.stage(digest) / f"images-{key}.parquet"

    def other_threshold(self, digest: str, examined: str) -> str | None:
        """Return the key of scores of the same cases at some threshold, None where there are none."""
        for path in sorted(self.stage(digest).glob(f"scores-{examined}-*.parquet")):
            key = path.stem.removeprefix("scores-")
            if self.images(digest, key).is_file():
                return key
        return None

    def publish(self, digest: str, draft: Path, record: Mapping[str, Any]) -> bool:
        """Make a finished attempt visible by one rename. False where another attempt was first."""
        (draft / RECORD).write_text(yaml.safe_dump(dict(record), sort_keys=False, allow_unicode=True), encoding="utf-8")
        files = seal(draft, [path.name for path in sorted(draft.iterdir())])
        write_json(draft / SEAL, {"updates": record["updates"], "seconds": record["seconds"], "files": files})
        self.stage(digest).parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.rename(self.stage(digest))
        except OSError:
            if not self.is_finished(digest):
                raise
            shutil.rmtree(draft)
            return False
        return True

    def republish(self, digest: str, draft: Path, record: Mapping[str, Any]) -> None:
        """Publish once more a stage whose weights were not kept; scores of other studies go along."""
        for old in self.stage(digest).glob("*.parquet"):
            if not (draft / old.name).exists():
                shutil.copy2(old, draft / old.name)
        before = self.work(digest) / f"before-{uuid.uuid4().hex[:8]}"
        self._move(digest, before)
        self.publish(digest, draft, record)
        shutil.rmtree(before, ignore_errors=True)

    def has_weights(self, digest: str) -> bool:
        """Return whether a finished stage still has its weights."""
        return (self.stage(digest) / WEIGHTS).is_file()

    def weights(self, digest: str) -> Path:
        """Return the weights of a finished stage, every byte of them verified. Raises `Damaged`."""
        self.verify(digest)
        files, path = self.seal(digest)["files"], self.stage(digest) / WEIGHTS
        if WEIGHTS not in files or not path.is_file():
            raise Damaged(digest, "its weights were not kept")
        if hash_of(path) != files[WEIGHTS]["blake2b"]:
            raise Damaged(digest, f"{WEIGHTS} was altered after it was written")
        return path

    def verify(self, digest: str) -> None:
        """Check a published stage against its seal. Raises `Damaged`."""
        sealed = self.seal(digest)
        what = damage(self.stage(digest), sealed["files"]) if sealed else "its seal is missing"
        if not what:
            return
        if sealed != self.seal(digest):  # another driver dropped the weights in between
            self.verify(digest)
        else:
            raise Damaged(digest, what)

    def seal(self, digest: str) -> dict[str, Any]:
        """Return `updates`, `seconds` and `files` of a finished stage; empty where the seal is gone."""
        try:
            sealed: dict[str, Any] = read_json(self.stage(digest) / SEAL) or {}
        except ValueError:
            return {}
        return sealed

    def set_aside(self, digest: str) -> None:
        """Move a damaged stage out of the way, so that it is trained again. Another process may have done so."""
        self._move(digest, self.root / "damaged" / f"{digest}-{uuid.uuid4().hex[:8]}")

    def _move(self, digest: str, aside: Path) -> None:
        aside.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.stage(digest).rename(aside)

    def record(self, digest: str) -> dict[str, Any]:
        """Return what is written about a finished stage."""
        text = (self.stage(digest) / RECORD).read_text(encoding="utf-8")
        record: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return record

    def planned(self, name: str) -> Sequence[str]:
        """Return the digests a study plans with, parents first; none before it was planned."""
        plan = read_json(self.study(name) / PLAN)
        return tuple(plan["stages"]) if plan else ()

    def planned_by_all(self, *, but: str | None = None) -> frozenset[str]:
        """Return the digests that studies plan with, those of one name left out."""
        names = [file.parent.name for file in self.root.glob(f"studies/*/{PLAN}")]
        return frozenset(digest for name in names if name != but for digest in self.planned(name))

    def drop_weights(self, digests: Iterable[str]) -> None:
        """Remove weights that are not to be kept; the stages stay finished."""
        for digest in digests:
            sealed = self.seal(digest)
            if sealed and sealed["files"].pop(WEIGHTS, None):
                write_json(self.stage(digest) / SEAL, sealed)
            (self.stage(digest) / WEIGHTS).unlink(missing_ok=True)

    def writable_problem(self) -> str | None:
        """Return why nothing can be stored here, None where it can."""
        probe = self.root / f".probe-{uuid.uuid4().hex}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            return f"{self.root} cannot be written ({error.strerror}); allowed: a folder you may write; choose another"
        return None


def write_scores(folder: Path, key: str, scores: "pa.Table", images: "pa.Table") -> None:
    """Write both tables of one scoring. The images go first: scores beside them mean that both are whole."""
    import pyarrow.parquet as pq

    for name, table in (("images", images), ("scores", scores)):
        aside = folder / f".{name}-{key}"
        pq.write_table(table, aside, compression="zstd")
        aside.replace(folder / f"{name}-{key}.parquet")
