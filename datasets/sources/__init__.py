"""The published layouts that can be read: settings and source by name."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from datasets.sample import Source
from datasets.sources.ccxs import CcxsSettings, CcxsSource
from datasets.sources.covid_lung_boxes import CovidLungBoxesSettings, CovidLungBoxesSource
from datasets.sources.folder import FolderSettings, FolderSource
from datasets.sources.phantom import PhantomSettings, PhantomSource

__all__ = [
    "SOURCES",
    "CcxsSettings",
    "CovidLungBoxesSettings",
    "DataSettings",
    "FolderSettings",
    "PhantomSettings",
    "open_source",
]

DataSettings = Annotated[
    PhantomSettings | FolderSettings | CcxsSettings | CovidLungBoxesSettings, Field(discriminator="source")
]

SOURCES: Mapping[str, Callable[[Any], Source]] = {
    "phantom": PhantomSource,
    "folder": FolderSource,
    "ccxs": CcxsSource,
    "covid_lung_boxes": CovidLungBoxesSource,
}


def open_source(settings: DataSettings) -> Source:
    """Return the source of these settings; files are first touched when its index is asked for."""
    return SOURCES[settings.source](settings)
