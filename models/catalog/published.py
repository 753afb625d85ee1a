"""Published weights and the content of their files. Used by planning, so it does not import torch."""

import re
from dataclasses import dataclass
from typing import Self

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Content:
    """The content of a file of published weights: its SHA-256 hash, and a commit of the repository that has it."""

    sha256: str
    commit: str


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """Published weights, as the table of backbones names them.

    Attributes:
        repository: Repository on the Hugging Face hub.
        revision: A commit, or a branch, whose files may change.
        sha256: Hash of the file, if the table states it.
    """

    repository: str
    revision: str
    sha256: str | None = None

    @classmethod
    def parse(cls, entry: str) -> Self:
        """Return the weights of a table entry: `repository@revision` or `repository@commit#sha256`."""
        location, _, sha256 = entry.partition("#")
        repository, _, revision = location.partition("@")
        return cls(repository=repository, revision=revision, sha256=sha256 or None)

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}"

    @property
    def is_pinned(self) -> bool:
        """Return whether the revision is a commit, so that the file cannot change."""
        return COMMIT.fullmatch(self.revision) is not None

    @property
    def is_identified_by_commit(self) -> bool:
        """Return whether digests contain the commit, instead of the hash of the file."""
        return self.is_pinned and self.sha256 is None

    @property
    def key(self) -> str:
        """Return the name of the folder of these weights in a storage."""
        name = str(self) if self.is_identified_by_commit else self.repository
        return name.replace("/", "--")

    @property
    def stated(self) -> Content | None:
        """Return the content that the table states, None if it states none."""
        return Content(sha256=self.sha256, commit=self.revision) if self.sha256 is not None else None

    def identity(self, content: Content | None) -> str:
        """Return what identifies the weights in digests.

        It ends in `?` if the content is not known, so that it differs from the identity of any known content.
        """
        if self.is_identified_by_commit:
            return str(self)
        return f"{self}?" if content is None else f"{self.repository}#{content.sha256}"
