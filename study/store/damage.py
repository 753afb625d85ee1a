"""Damage of files of published stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.store.atomic import AlteredFileError, hash_of, intact_table
from study.store.paths import MANIFEST, WEIGHTS

NO_MANIFEST = "its manifest is missing, damaged or of another stage"
NOT_KEPT = "its weights were not kept"
STAGE = b"stage"
"""Metadata key of the digest of the stage in scores that were added to it later."""


class DamagedStageError(AlteredFileError):
    """A file of a published stage was altered. `digest` identifies the stage, `name` the file."""

    def __init__(self, digest: str, problem: str, name: str = MANIFEST) -> None:
        self.digest, self.name = digest, name
        super().__init__(f"stage {digest}", problem)

    @property
    def short(self) -> str:
        """Return the problem without the remedy."""
        return f"{self.where}: {self.problem}"

    @property
    def scoring(self) -> str | None:
        """Return the key of the damaged scores; None if another file of the stage is damaged."""
        kind, _, key = self.name.removesuffix(".parquet").partition("-")
        return key if kind in {"scores", "images"} else None

    def __reduce__(self) -> tuple[type["DamagedStageError"], tuple[str, str, str]]:
        return DamagedStageError, (self.digest, self.problem, self.name)  # it is pickled between processes


def file_damage(path: Path, manifest: Mapping[str, Any]) -> str | None:
    """Hash a file of a stage and compare it with the manifest; return the damage, None if it is intact."""
    if not manifest:
        return NO_MANIFEST
    expected = manifest["files"].get(path.name)
    if not path.is_file():
        return NOT_KEPT if path.name == WEIGHTS and expected is None else f"{path.name} is missing"
    if expected is not None:
        return None if hash_of(path) == expected["blake2b"] else f"{path.name} was altered after it was written"
    try:
        stage = _stage_of(intact_table(path))  # scores added after the manifest have their own hash
    except AlteredFileError as error:
        return f"{path.name} {error.problem}"
    return f"{path.name} is of stage {stage}" if stage not in {None, path.parent.name} else None


def _stage_of(path: Path) -> str | None:
    """Return the digest of the stage in the metadata of scores, None if there is none."""
    import pyarrow.parquet as pq

    stage = (pq.read_metadata(path).metadata or {}).get(STAGE)
    return stage.decode() if stage is not None else None
