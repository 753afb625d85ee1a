"""What is wrong with a file of a published stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results.signed import is_intact
from study.files import Altered, hash_of
from study.layout import SEAL, WEIGHTS

NO_SEAL = "its seal is missing or damaged"


class Damaged(Altered):
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

    def __reduce__(self) -> tuple[type["Damaged"], tuple[str, str, str]]:
        return Damaged, (self.digest, self.what, self.name)  # it crosses processes


def flaw(path: Path, sealed: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a file of a stage with this seal, None where every byte is as it was written."""
    if not sealed:
        return NO_SEAL
    mark = sealed["files"].get(path.name)
    if not path.is_file():
        return "its weights were not kept" if path.name == WEIGHTS and mark is None else f"{path.name} is missing"
    # Scores that were added after the seal carry their own hash.
    intact = is_intact(path) is not False if mark is None else hash_of(path) == mark["blake2b"]
    return None if intact else f"{path.name} was altered after it was written"
