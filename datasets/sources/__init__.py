"""Settings and sources of all supported data set layouts, by name."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from datasets.source import Source
from datasets.sources.ccxs import CcxsSettings, CcxsSource
from datasets.sources.chexpert import ChexpertSettings, ChexpertSource
from datasets.sources.coco import CocoSettings, CocoSource
from datasets.sources.covid_chestxray import CovidChestxraySettings, CovidChestxraySource
from datasets.sources.covid_lung_boxes import CovidLungBoxesSettings, CovidLungBoxesSource
from datasets.sources.folder.settings import FolderSettings
from datasets.sources.folder.source import FolderSource
from datasets.sources.idrid import IdridSettings, IdridSource
from datasets.sources.nnunet.source import NnunetSettings, NnunetSource
from datasets.sources.phantom.source import PhantomSettings, PhantomSource
from datasets.sources.polygons.source import PolygonSettings, PolygonSource
from datasets.sources.siim_acr import SiimAcrSettings, SiimAcrSource
from datasets.sources.siim_covid19 import SiimCovid19Settings, SiimCovid19Source

__all__ = [
    "SOURCES",
    "CcxsSettings",
    "ChexpertSettings",
    "CocoSettings",
    "CovidChestxraySettings",
    "CovidLungBoxesSettings",
    "DataSettings",
    "FolderSettings",
    "IdridSettings",
    "NnunetSettings",
    "PhantomSettings",
    "PolygonSettings",
    "SiimAcrSettings",
    "SiimCovid19Settings",
    "open_source",
]

DataSettings = Annotated[
    PhantomSettings
    | FolderSettings
    | CcxsSettings
    | CovidLungBoxesSettings
    | CovidChestxraySettings
    | ChexpertSettings
    | IdridSettings
    | NnunetSettings
    | PolygonSettings
    | SiimAcrSettings
    | SiimCovid19Settings
    | CocoSettings,
    Field(discriminator="source"),
]

SOURCES: Mapping[str, Callable[[Any], Source]] = {
    "phantom": PhantomSource,
    "folder": FolderSource,
    "ccxs": CcxsSource,
    "covid_lung_boxes": CovidLungBoxesSource,
    "covid_chestxray": CovidChestxraySource,
    "chexpert": ChexpertSource,
    "idrid": IdridSource,
    "siim_acr": SiimAcrSource,
    "siim_covid19": SiimCovid19Source,
    "nnunet": NnunetSource,
    "coco": CocoSource,
    "polygons": PolygonSource,
}


def open_source(settings: DataSettings) -> Source:
    """Return the source for these settings; no file is read before `Source.index` is called."""
    return SOURCES[settings.source](settings)
