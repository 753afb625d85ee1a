"""The storage of finished stages, addressed by digest and shared by all studies."""

import contextlib
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from study.store.atomic import (
    AlteredFileError,
    inside,
    manifest_of,
    read_signed,
    write_signed,
    write_table,
)
from study.store.backend import Backend, CheckpointCopies
from study.store.bucket_backend import open_backend
from study.store.damage import NO_MANIFEST, NOT_KEPT, STAGE, DamagedStageError, file_damage
from study.store.documents import MANIFEST_FORM, read_plan
from study.store.object_store import for_each
from study.store.paths import MANIFEST, RECORD, STAGE_SCORES, WEIGHTS

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Store:
    """A storage: `stages/<digest>/` finished, `work/<digest>/<attempt>/` running, `studies/<name>/` plans and results.

    `root` may mirror a bucket (`study.store.bucket_backend`): files are downloaded when they are requested by name, and
    uploaded when they are written with these methods.
    """

    root: Path

    @cached_property
    def backend(self) -> Backend:
        """Return where the files are kept: in the folder itself, or in a bucket that it mirrors."""
        return open_backend(self.root)

    @property
    def origin(self) -> str | None:
        """Return the URI of the mirrored bucket, None without one."""
        return self.backend.origin

    @property
    def place(self) -> str:
        """Return the URI or path of the storage, for messages."""
        return self.origin or str(self.root)

    def stage(self, digest: str) -> Path:
        """Return the folder of a finished stage."""
        return self.backend.stage(digest)

    def work(self, digest: str) -> Path:
        """Return the folder of the attempts at a stage."""
        return self.backend.work(digest)

    def study(self, name: str) -> Path:
        """Return the folder of a study."""
        return inside(self.root / "studies", name)

    def finished(self) -> frozenset[str]:
        """Return the digests of all finished stages, from one listing."""
        return self.backend.finished()

    def is_finished(self, digest: str) -> bool:
        """Return whether a stage is published."""
        return self.backend.has(digest, MANIFEST)

    def scored(self, digest: str, key: str) -> bool:
        """Return whether a target stage has these scores."""
        return all(self.backend.has(digest, name) for name in score_files(key))

    def scores(self, digest: str, key: str) -> Path:
        """Return the file of pixel counts, verified. Raises `DamagedStageError`."""
        return self.file(digest, score_files(key).scores)

    def images(self, digest: str, key: str) -> Path:
        """Return the file of image-wise calibration, verified. Raises `DamagedStageError`."""
        return self.file(digest, score_files(key).images)

    def stage_scores(self, digest: str) -> Path | None:
        """Return the verified file of scores of a localisation stage, None without one. Raises `DamagedStageError`."""
        return self.file(digest, STAGE_SCORES) if self.backend.has(digest, STAGE_SCORES) else None

    def score_fingerprints(self, digest: str, key: str) -> list[str]:
        """Return size and modification time of both score files, to detect changes. Raises `DamagedStageError`."""
        try:
            statuses = [self.backend.fetch(digest, name).stat() for name in score_files(key)]
        except FileNotFoundError as error:  # another driver set the scores aside
            name = Path(str(error.filename)).name
            raise DamagedStageError(digest, f"{name} is missing", name) from error
        return [f"{status.st_size} {status.st_mtime_ns}" for status in statuses]

    def scorings(self, digest: str) -> list[str]:
        """Return the keys of all scores of a target stage."""
        names = self.backend.names(digest)
        keys = {name.removesuffix(".parquet").partition("-")[2] for name in names if name.startswith("scores-")}
        return sorted(key for key in keys if names.issuperset(score_files(key)))

    def other_threshold(self, digest: str, evaluation: str) -> str | None:
        """Return the key of scores of the same cases at any threshold, None if there are none."""
        return next((key for key in self.scorings(digest) if key.startswith(f"{evaluation}-")), None)

    def file(self, digest: str, name: str) -> Path:
        """Verify the hash of a file of a finished stage and return its path. Raises `DamagedStageError`."""
        path, manifest = self.backend.fetch(digest, name), self._read_manifest(digest)
        problem = file_damage(path, manifest)
        if problem and self.backend.discard_copy(digest, name):
            problem = file_damage(self.backend.fetch(digest, name), self._read_manifest(digest))
        if problem and manifest != self._read_manifest(digest):
            # Another driver published the stage again or dropped its weights.
            return self.file(digest, name)
        if problem:
            raise DamagedStageError(digest, problem, name if manifest else MANIFEST)
        return path

    def prefetch(self, files: Iterable[tuple[str, str]]) -> None:
        """Download files of stages, given by digest and name, in parallel before they are read."""
        self.backend.prefetch(files)

    def refresh(self, digest: str) -> None:
        """Forget what is cached about the files of a stage, to see those that other machines wrote."""
        self.backend.refresh(digest)

    def discard_copy(self, digest: str, name: str) -> None:
        """Remove the local copy of a file that can be downloaded again; does nothing without a bucket."""
        self.backend.discard_copy(digest, name)

    def publish(self, digest: str, draft: Path, record: Mapping[str, Any]) -> bool:
        """Publish a finished attempt by renaming its folder. Return False if another attempt was first."""
        (draft / RECORD).write_text(yaml.safe_dump(dict(record), sort_keys=False, allow_unicode=True), encoding="utf-8")
        files = manifest_of(draft, [path.name for path in sorted(draft.iterdir())])
        kept = {name: record[name] for name in ("updates", "seconds")}
        write_signed(draft / MANIFEST, {"digest": digest, **kept, "files": files})
        return self.backend.publish(digest, draft)

    def republish(self, digest: str, draft: Path, record: Mapping[str, Any]) -> None:
        """Publish a stage again whose weights were not kept; keep intact scores of other studies."""
        for name in self.backend.names(digest):
            if name.endswith(".parquet") and not (draft / name).exists():
                # Damaged scores are dropped, because the new manifest would include them.
                with contextlib.suppress(DamagedStageError):
                    shutil.copy2(self.file(digest, name), draft / name)
        before = self.work(digest) / f"before-{uuid.uuid4().hex[:8]}"
        self.backend.withdraw(digest, before)
        self.publish(digest, draft, record)
        shutil.rmtree(before, ignore_errors=True)

    def has_weights(self, digest: str) -> bool:
        """Return whether a finished stage still has its weights."""
        return self.backend.has(digest, WEIGHTS)

    def weights(self, digest: str) -> Path:
        """Verify the weights of a finished stage and return their path. Raises `DamagedStageError`."""
        self.verify(digest)
        return self.file(digest, WEIGHTS)

    def verify(self, digest: str, *, every_byte: bool = False) -> None:
        """Check a published stage against its manifest. Raises `DamagedStageError`.

        With `every_byte` all files are hashed, except the weights, which are verified when they are loaded.
        """
        manifest = self._read_manifest(digest)
        damaged = self.backend.damage(digest, manifest["files"]) if manifest else (MANIFEST, NO_MANIFEST)
        if damaged is None:
            if every_byte:
                for name in sorted(self.backend.names(digest) - {MANIFEST, WEIGHTS}):
                    self.file(digest, name)
            return
        self.backend.refresh(digest)
        if manifest != self._read_manifest(digest):  # another driver dropped the weights in the meantime
            self.verify(digest, every_byte=every_byte)
        else:
            raise DamagedStageError(digest, damaged[1], damaged[0])

    def manifest(self, digest: str) -> dict[str, Any]:
        """Return `updates`, `seconds` and `files` of a finished stage. Raises `DamagedStageError`."""
        manifest = self._read_manifest(digest)
        if not manifest:
            raise DamagedStageError(digest, NO_MANIFEST)
        return manifest

    def _read_manifest(self, digest: str) -> dict[str, Any]:
        """Return the manifest of a stage; empty if it is missing, damaged, or of another stage."""
        try:
            manifest = read_signed(self.backend.fetch(digest, MANIFEST), MANIFEST_FORM) or {}
        except AlteredFileError:
            if not self.backend.discard_copy(digest, MANIFEST):
                return {}
            with contextlib.suppress(AlteredFileError):
                manifest = read_signed(self.backend.fetch(digest, MANIFEST), MANIFEST_FORM) or {}
        return manifest if manifest.get("digest", digest) == digest else {}

    def set_aside(self, damaged: DamagedStageError) -> str:
        """Move a damaged stage, or only its damaged scores, aside; return what follows, for messages.

        A stage with damaged scores stays finished and is evaluated again. A stage whose weights another driver dropped
        stays finished as well, and is trained and published again.
        """
        if damaged.problem == NOT_KEPT:
            return "it is trained again"
        target = f"damaged/{damaged.digest}-{uuid.uuid4().hex[:8]}"
        if damaged.scoring is not None:
            names = score_files(damaged.scoring)
            self.backend.set_files_aside(damaged.digest, target, names)
            self._remove_from_manifest(damaged.digest, names)
            return "it was set aside, and the stage is evaluated again"
        self.backend.set_aside(damaged.digest, target)
        return "it was set aside and is trained again"

    def _remove_from_manifest(self, digest: str, names: Iterable[str]) -> None:
        """Remove files from the manifest of a stage."""
        manifest = self._read_manifest(digest)
        if manifest and not manifest["files"].keys().isdisjoint(names):
            manifest["files"] = {name: entry for name, entry in manifest["files"].items() if name not in names}
            write_signed(self.stage(digest) / MANIFEST, manifest)
            self.backend.upload(digest, MANIFEST)

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
        self.backend.pull_studies(files)
        return sorted(file.relative_to(self.root).parts[1] for file in self.root.glob(f"studies/*/{files[0]}"))

    def pull(self, name: str) -> None:
        """Download the current folder of a study; does nothing without a bucket."""
        self.backend.pull_study(name)

    def uploading(self, name: str) -> AbstractContextManager[None]:
        """Return a context manager that uploads changed files of a study folder."""
        return self.backend.uploading_study(name)

    def drop_weights(self, digests: Iterable[str]) -> None:
        """Remove the weights of stages; the stages stay finished."""
        for_each(self._drop_weights, digests)

    def _drop_weights(self, digest: str) -> None:
        self._remove_from_manifest(digest, [WEIGHTS])
        self.backend.remove(digest, WEIGHTS)

    def drop_work(self, digest: str) -> None:
        """Remove the files of attempts at a stage, as far as possible."""
        with contextlib.suppress(OSError):
            self.backend.remove_folders([f"work/{digest}"])

    def add_scores(self, digest: str, key: str, scores: "pa.Table", images: "pa.Table") -> None:
        """Add both tables of one scoring to a finished stage."""
        self.stage(digest).mkdir(parents=True, exist_ok=True)
        scores, images = (
            table.replace_schema_metadata({**(table.schema.metadata or {}), STAGE: digest})
            for table in (scores, images)
        )
        write_scores(self.stage(digest), key, scores, images)
        self.backend.upload(digest, *score_files(key))

    def lease(self, digest: str) -> AbstractContextManager[None]:
        """Lease a stage during the block. Raises `LeaseHeld` if another process has leased it."""
        return self.backend.lease(digest)

    def is_leased(self, digest: str) -> bool:
        """Return whether a process has leased a stage and is alive."""
        return self.backend.is_leased(digest)

    def checkpoint_copies(self, digest: str) -> CheckpointCopies:
        """Return the copies of a stage's checkpoints for attempts on other machines."""
        return self.backend.checkpoint_copies(digest)

    def writing_problem(self) -> str | None:
        """Return why the storage is not writable, None if it is."""
        return self.backend.writing_problem()


class ScoreFiles(NamedTuple):
    """Names of the two files of a scoring, in the order of writing."""

    images: str
    """Calibration of each image."""
    scores: str
    """Pixel counts of each image."""


def score_files(key: str) -> ScoreFiles:
    """Return the names of the files of a scoring, see `study.planning.graph.Scoring.key`."""
    return ScoreFiles(images=f"images-{key}.parquet", scores=f"scores-{key}.parquet")


def write_scores(folder: Path, key: str, scores: "pa.Table", images: "pa.Table") -> None:
    """Write both tables of one scoring. Images are written first: if scores exist, both tables are complete."""
    for name, table in zip(score_files(key), (images, scores), strict=True):
        write_table(folder / name, table)
