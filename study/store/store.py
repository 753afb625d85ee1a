"""The storage of finished stages, addressed by digest and shared by all studies."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from study.store.atomic import (
    AlteredFileError,
    Damage,
    damage,
    inside,
    read_signed,
    seal,
    write_signed,
    write_table,
    writing_problem,
)
from study.store.bucket_store import Mirror, mirror_of
from study.store.damage import NO_SEAL, NOT_KEPT, STAGE, DamagedStageError, file_damage
from study.store.documents import SEAL_FORM, read_plan
from study.store.folder_sync import pull, pull_all, uploading
from study.store.object_store import for_each
from study.store.paths import RECORD, SEAL, WEIGHTS

if TYPE_CHECKING:
    import pyarrow as pa

FOLDERS = "stages", "work", "studies"
"""Folders of a storage that a run writes to."""


@dataclass(frozen=True)
class Store:
    """A storage: `stages/<digest>/` finished, `work/<digest>/<attempt>/` running, `studies/<name>/` plans and results.

    `root` may mirror a bucket (`study.store.bucket_store`): files are downloaded when they are requested by name, and
    uploaded when they are written with these methods.
    """

    root: Path

    @cached_property
    def mirror(self) -> Mirror | None:
        """Return the mirror of a bucket, None if the folder is the storage itself."""
        return mirror_of(self.root)

    @property
    def origin(self) -> str | None:
        """Return the URI of the mirrored bucket, None without one."""
        return None if self.mirror is None else self.mirror.remote.uri

    @property
    def place(self) -> str:
        """Return the URI or path of the storage, for messages."""
        return self.origin or str(self.root)

    def stage(self, digest: str) -> Path:
        """Return the folder of a finished stage."""
        return inside(self.root / "stages", digest)

    def work(self, digest: str) -> Path:
        """Return the folder of the attempts at a stage."""
        return inside(self.root / "work", digest)

    def study(self, name: str) -> Path:
        """Return the folder of a study."""
        return inside(self.root / "studies", name)

    def finished(self) -> frozenset[str]:
        """Return the digests of all finished stages, from one listing."""
        if self.mirror is not None:
            return self.mirror.finished()
        return self._listed(self.root / "stages")

    def is_finished(self, digest: str) -> bool:
        """Return whether a stage is published."""
        return self._has(digest, SEAL)

    def scored(self, digest: str, key: str) -> bool:
        """Return whether a target stage has these scores."""
        return all(self._has(digest, name) for name in score_files(key))

    def scores(self, digest: str, key: str) -> Path:
        """Return the file of pixel counts, verified. Raises `DamagedStageError`."""
        return self.file(digest, score_files(key)[1])

    def images(self, digest: str, key: str) -> Path:
        """Return the file of image-wise calibration, verified. Raises `DamagedStageError`."""
        return self.file(digest, score_files(key)[0])

    def score_times(self, digest: str, key: str) -> list[str]:
        """Return size and modification time of both score files, to detect changes."""
        statuses = [self._local(digest, name).stat() for name in score_files(key)]
        return [f"{status.st_size} {status.st_mtime_ns}" for status in statuses]

    def scorings(self, digest: str) -> list[str]:
        """Return the keys of all scores of a target stage."""
        names = self._names(digest)
        keys = {name.removesuffix(".parquet").partition("-")[2] for name in names if name.startswith("scores-")}
        return sorted(key for key in keys if names.issuperset(score_files(key)))

    def other_threshold(self, digest: str, examined: str) -> str | None:
        """Return the key of scores of the same cases at any threshold, None if there are none."""
        return next((key for key in self.scorings(digest) if key.startswith(f"{examined}-")), None)

    def file(self, digest: str, name: str) -> Path:
        """Verify the hash of a file of a finished stage and return its path. Raises `DamagedStageError`."""
        path, sealed = self._local(digest, name), self._seal(digest)
        problem = file_damage(path, sealed)
        if problem and self.mirror is not None:  # the local copy may be damaged
            self.mirror.forget(digest, name)
            problem = file_damage(self._local(digest, name), self._seal(digest))
        if problem and sealed != self._seal(digest):  # another driver published the stage again or dropped its weights
            return self.file(digest, name)
        if problem:
            raise DamagedStageError(digest, problem, name if sealed else SEAL)
        return path

    def _local(self, digest: str, name: str) -> Path:
        """Return the local path of a file of a finished stage, without verification."""
        if self.mirror is not None:
            self.mirror.fetch(digest, name)
        return self.stage(digest) / name

    def prefetch(self, files: Iterable[tuple[str, str]]) -> None:
        """Download files of stages, given by digest and name, in parallel before they are read."""
        if self.mirror is not None:
            self.mirror.fetch_all(files)

    def _has(self, digest: str, name: str) -> bool:
        if self.mirror is not None:
            return name in self.mirror.names(digest, name)
        return (self.stage(digest) / name).is_file()

    def _names(self, digest: str) -> frozenset[str]:
        return self._listed(self.stage(digest)) if self.mirror is None else frozenset(self.mirror.names(digest))

    @staticmethod
    def _listed(folder: Path) -> frozenset[str]:
        try:
            with os.scandir(folder) as entries:
                return frozenset(entry.name for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()

    def publish(self, digest: str, draft: Path, record: Mapping[str, Any]) -> bool:
        """Publish a finished attempt by renaming its folder. Return False if another attempt was first."""
        (draft / RECORD).write_text(yaml.safe_dump(dict(record), sort_keys=False, allow_unicode=True), encoding="utf-8")
        files = seal(draft, [path.name for path in sorted(draft.iterdir())])
        kept = {name: record[name] for name in ("updates", "seconds")}
        write_signed(draft / SEAL, {"digest": digest, **kept, "files": files})
        if self.mirror is not None:
            return self.mirror.publish(digest, draft)
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
        """Publish a stage again whose weights were not kept; keep intact scores of other studies."""
        for name in self._names(digest):
            if name.endswith(".parquet") and not (draft / name).exists():
                # Damaged scores are dropped, because the new seal would include them.
                with contextlib.suppress(DamagedStageError):
                    shutil.copy2(self.file(digest, name), draft / name)
        if self.mirror is not None:
            self.mirror.unfinish(digest)
        before = self.work(digest) / f"before-{uuid.uuid4().hex[:8]}"
        self._move_stage(digest, before)
        self.publish(digest, draft, record)
        shutil.rmtree(before, ignore_errors=True)

    def has_weights(self, digest: str) -> bool:
        """Return whether a finished stage still has its weights."""
        return self._has(digest, WEIGHTS)

    def weights(self, digest: str) -> Path:
        """Verify the weights of a finished stage and return their path. Raises `DamagedStageError`."""
        self.verify(digest)
        return self.file(digest, WEIGHTS)

    def verify(self, digest: str, *, every_byte: bool = False) -> None:
        """Check a published stage against its seal. Raises `DamagedStageError`.

        With `every_byte` all files are hashed, except the weights, which are verified when they are loaded.
        """
        sealed = self._seal(digest)
        damaged = self._damage(digest, sealed["files"]) if sealed else (SEAL, NO_SEAL)
        if damaged is None:
            if every_byte:
                for name in sorted(self._names(digest) - {SEAL, WEIGHTS}):
                    self.file(digest, name)
            return
        if self.mirror is not None:
            self.mirror.refresh(digest)
        if sealed != self._seal(digest):  # another driver dropped the weights in the meantime
            self.verify(digest, every_byte=every_byte)
        else:
            raise DamagedStageError(digest, damaged[1], damaged[0])

    def _damage(self, digest: str, files: Mapping[str, Mapping[str, Any]]) -> Damage | None:
        return damage(self.stage(digest), files) if self.mirror is None else self.mirror.damage(digest, files)

    def seal(self, digest: str) -> dict[str, Any]:
        """Return `updates`, `seconds` and `files` of a finished stage. Raises `DamagedStageError`."""
        sealed = self._seal(digest)
        if not sealed:
            raise DamagedStageError(digest, NO_SEAL)
        return sealed

    def _seal(self, digest: str) -> dict[str, Any]:
        """Return the seal of a stage; empty if it is missing, damaged, or of another stage."""
        for _ in range(1 if self.mirror is None else 2):
            with contextlib.suppress(AlteredFileError):
                sealed = read_signed(self._local(digest, SEAL), SEAL_FORM) or {}
                return sealed if sealed.get("digest", digest) == digest else {}
            if self.mirror is not None:  # the local copy may be damaged
                self.mirror.forget(digest, SEAL)
        return {}

    def set_aside(self, damaged: DamagedStageError) -> None:
        """Move a damaged stage, or only its damaged scores, aside, so that it is recreated.

        A stage with damaged scores stays finished and is evaluated again. A stage whose weights another driver dropped
        stays finished as well, and is trained and published again.
        """
        if damaged.what == NOT_KEPT:
            return
        target = f"damaged/{damaged.digest}-{uuid.uuid4().hex[:8]}"
        if damaged.scoring is not None:
            self._set_scores_aside(damaged.digest, damaged.scoring, target)
        elif self.mirror is not None:
            self.mirror.set_aside(damaged.digest, target)
        else:
            self._move_stage(damaged.digest, self.root / target)

    def _set_scores_aside(self, digest: str, key: str, target: str) -> None:
        names = score_files(key)
        if self.mirror is not None:
            self.mirror.set_files_aside(digest, target, names)
        else:
            (self.root / target).mkdir(parents=True)
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    (self.stage(digest) / name).rename(self.root / target / name)
        self._unseal(digest, names)

    def _unseal(self, digest: str, names: Iterable[str]) -> None:
        """Remove files from the seal of a stage."""
        sealed = self._seal(digest)
        if sealed and not sealed["files"].keys().isdisjoint(names):
            sealed["files"] = {name: entry for name, entry in sealed["files"].items() if name not in names}
            write_signed(self.stage(digest) / SEAL, sealed)
            self._upload(digest, SEAL)

    def _move_stage(self, digest: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self.stage(digest).rename(target)

    def record(self, digest: str) -> dict[str, Any]:
        """Return the record of a finished stage. Raises `DamagedStageError`."""
        text = self.file(digest, RECORD).read_text(encoding="utf-8")
        record: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return record

    def planned(self, name: str) -> Sequence[str]:
        """Return the digests in the plan of a study, parents first; empty without a plan. Raises `AlteredFileError`."""
        plan = read_plan(self.study(name))
        return tuple(plan["stages"]) if plan else ()

    def studies(self, *files: str) -> list[str]:
        """Return the names of the studies that have the first of these files; a mirror downloads all of the files."""
        if self.mirror is not None:
            pull_all(self.mirror, files)
        return sorted(file.relative_to(self.root).parts[1] for file in self.root.glob(f"studies/*/{files[0]}"))

    def pull(self, name: str) -> None:
        """Download the current folder of a study; does nothing without a mirror."""
        if self.mirror is not None:
            pull(self.mirror, name)

    def uploading(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager that uploads changed files of a study folder."""
        return nullcontext() if self.mirror is None else uploading(self.mirror, name)

    def drop_weights(self, digests: Iterable[str]) -> None:
        """Remove the weights of stages; the stages stay finished."""
        for_each(self._drop_weights, digests, parallel=self.mirror is not None)

    def _drop_weights(self, digest: str) -> None:
        self._unseal(digest, [WEIGHTS])
        (self.stage(digest) / WEIGHTS).unlink(missing_ok=True)
        if self.mirror is not None:
            self.mirror.remove(digest, WEIGHTS)

    def drop_work(self, digest: str) -> None:
        """Remove the files of attempts at a stage."""
        shutil.rmtree(self.work(digest), ignore_errors=True)
        if self.mirror is not None:
            self.mirror.remote.delete_folder(f"work/{digest}")

    def add_scores(self, digest: str, key: str, scores: "pa.Table", images: "pa.Table") -> None:
        """Add both tables of one scoring to a finished stage."""
        self.stage(digest).mkdir(parents=True, exist_ok=True)
        scores, images = (table.replace_schema_metadata({STAGE: digest}) for table in (scores, images))
        write_scores(self.stage(digest), key, scores, images)
        self._upload(digest, *score_files(key))

    def _upload(self, digest: str, *names: str) -> None:
        if self.mirror is not None:
            self.mirror.upload(digest, *names)

    def writable_problem(self) -> str | None:
        """Return why the storage is not writable, None if it is."""
        if self.mirror is not None:
            return self.mirror.writing_problem()
        existing = [folder for name in FOLDERS if os.path.lexists(folder := self.root / name)]
        return next(filter(None, map(writing_problem, (self.root, *existing))), None)


def score_files(key: str) -> tuple[str, str]:
    """Return the file names of image-wise calibration and of pixel counts, in the order of writing."""
    return f"images-{key}.parquet", f"scores-{key}.parquet"


def write_scores(folder: Path, key: str, scores: "pa.Table", images: "pa.Table") -> None:
    """Write both tables of one scoring. Images are written first: if scores exist, both tables are complete."""
    for name, table in zip(score_files(key), (images, scores), strict=True):
        write_table(folder / name, table)
