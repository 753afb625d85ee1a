"""Several annotators of one data set: the data as each of them annotated it."""

from collections.abc import Mapping

from datasets.sources import DataSettings
from datasets.sources.folder.settings import FolderSettings


def other_annotators(settings: DataSettings) -> Mapping[str, DataSettings]:
    """Return the settings with which the masks of every annotator who is not trained on are read, by name."""
    if not isinstance(settings, FolderSettings) or settings.annotators is None:
        return {}
    return {
        name: settings.model_copy(update={"train": name}) for name in settings.annotators if name != settings.trained
    }


def trained_annotator(settings: DataSettings) -> str:
    """Return the name of the annotator whose masks are trained on, "" without several annotators."""
    return settings.trained or "" if isinstance(settings, FolderSettings) else ""
