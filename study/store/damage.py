"""What is wrong with a file of a published stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.store.atomic import AlteredFileError, hash_of, intact_table
from study.store.paths import SEAL, WEIGHTS

NO_SEAL = "its seal is missing, damaged or of another stage"
NOT_KEPT = "its weights were not kept"
STAGE = b"stage"
"""Key of the metadata of scores that were added to a finished stage: its digest."""


class DamagedStageError(AlteredFileError):
    """A file of a published stage is not what was written. `digest` names the stage, `name` the file."""

    def __init__(self, digest: str, what: str, name: str = SEAL) -> None:
        self.digest, self.name = digest, name
        super().__init__(f"stage {digest}", what)

    @property
    def short(self) -> str:
        """Return what is wrong, without the remedy."""
        return f"{self.where}: {self.what}"

    @property
    def scoring(self) -> str | None:
        """Return the key of the scores that are damaged; None where the stage itself is."""
        kind, _, key = self.name.removesuffix(".parquet").partition("-")
        return key if kind in {"scores", "images"} else None

    def __reduce__(self) -> tuple[type["DamagedStageError"], tuple[str, str, str]]:
        return DamagedStageError, (self.digest, self.what, self.name)  # it crosses processes


def flaw(path: Path, sealed: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a file of a stage with this seal, None where every byte is as it was written."""
    if not sealed:
        return NO_SEAL
    mark = sealed["files"].get(path.name)
    if not path.is_file():
        return NOT_KEPT if path.name == WEIGHTS and mark is None else f"{path.name} is missing"
    if mark is not None:
        return None if hash_of(path) == mark["blake2b"] else f"{path.name} was altered after it was written"
    try:
        stage = _stage_of(intact_table(path))  # scores that were added after the seal carry their own hash
    except AlteredFileError as error:
        return f"{path.name} {error.what}"
    return f"{path.name} is of stage {stage}" if stage not in {None, path.parent.name} else None


def _stage_of(path: Path) -> str | None:
    """Return the digest of the stage that scores were written for; None where they do not say so."""
    import pyarrow.parquet as pq

    stage = (pq.read_metadata(path).metadata or {}).get(STAGE)
    return stage.decode() if stage is not None else None
