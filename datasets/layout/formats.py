"""Layouts that are recognised by a file: COCO, nnU-Net, exports of labelling tools."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from datasets.decoding.decode import suffix_of
from datasets.decoding.text import read_bytes
from datasets.errors import DataError
from datasets.layout.files import Files
from datasets.layout.patients import PATIENTS_TO_CHECK, patient_pattern
from datasets.layout.proposal import Proposal

MAX_JSON: Final = 2**29
"""Maximum size in bytes of a JSON file that is read."""
MAX_TRIED: Final = 12
"""Maximum number of JSON files that are looked at."""
LABELME: Final = "LabelMe"
COCO_KEYS: Final = frozenset({"images", "annotations", "categories"})


def special_layout(files: Files, named: str = "") -> Proposal | None:
    """Return the settings of a layout that a file describes, None if there is none.

    Args:
        files: The files.
        named: A file that the user named; others are then not looked at.

    Raises:
        DataError: An export of a labelling tool that is not read as it is, with the remedy.
    """
    names = {*files.others}
    if not named and "dataset.json" in names and any(path.startswith("imagesTr/") for path in files.images):
        return _nnunet(files)
    tables = [named] if named else files.named(".json")
    documents = [
        (path, _load(files.root / path)) for path in sorted(tables, key=lambda path: path.count("/"))[:MAX_TRIED]
    ]
    coco = [(path, content) for path, content in documents if isinstance(content, dict) and content.keys() >= COCO_KEYS]
    if coco:
        return _coco(files, dict(coco))
    for path, content in documents:
        tool = _tool(content)
        if tool == LABELME:
            return _polygons(files, tool)
        if tool:
            raise _not_read(files.root / path, tool)
    tables = [named] if named else files.named(".xml")[:MAX_TRIED]
    exports = [path for path in tables if _is_cvat(files.root / path)]
    if exports:
        proposal = _polygons(files, "CVAT", exports[0])
        unread = [f"{', '.join(exports[1:])}: one XML file of CVAT is read"] if exports[1:] else []
        return replace(proposal, unknown=[*unread, *proposal.unknown])
    if named:
        raise DataError(
            f"{files.root / named} is no file that is recognised; allowed: a folder, an archive or a COCO file; "
            "name the folder of the images"
        )
    return None


def _is_cvat(path: Path) -> bool:
    start = read_bytes(path)[:65536]
    return b"<annotations>" in start and b"<image " in start


def _load(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(read_bytes(path)) if path.stat().st_size <= MAX_JSON else None
    except (DataError, OSError, ValueError, RecursionError):
        return None


def _tool(content: object) -> str:
    """Return the labelling tool that wrote a document, "" for other documents."""
    if isinstance(content, list):
        first = content[0] if content and isinstance(content[0], dict) else {}
        return "Label Studio" if "data" in first and {"annotations", "completions"} & first.keys() else ""
    if not isinstance(content, dict):
        return ""
    if "shapes" in content and "imagePath" in content:
        return LABELME
    return "Supervisely" if "objects" in content and "size" in content else ""


def _polygons(files: Files, tool: str, path: str = "") -> Proposal:
    """Return the settings for polygons in JSON files of LabelMe, or in an XML file of CVAT."""
    settings: dict[str, object] = {"source": "polygons"}
    if path:
        settings["annotations"] = path
    assumed = [f"{path or 'JSON files beside images'}: polygons of {tool} are masks, boxes and lines are none"]
    unknown = [] if path else ["images without a JSON file: they count as unlabelled"]
    names = [image[: len(image) - len(suffix_of(image))] for image in files.images]
    found = patient_pattern(names)
    if found is None:
        return Proposal(layout=tool, settings=settings, assumed=assumed, unknown=unknown, check=[PATIENTS_TO_CHECK])
    assumed.append(found[1])
    settings["patients"] = found[0]
    return Proposal(
        layout=tool, settings=settings, assumed=assumed, unknown=unknown, check=["whether these are patients"]
    )


def _not_read(path: Path, tool: str) -> DataError:
    return DataError(
        f"{path} is an export of {tool}, which is not read; allowed: masks, or COCO in JSON; export COCO there, or "
        "convert it, and run this command again"
    )


def _nnunet(files: Files) -> Proposal:
    has_test = any(path.startswith("labelsTs/") for path in files.images)
    settings: dict[str, object] = {"source": "nnunet"}
    assumed = ["dataset.json and imagesTr: a raw data set of nnU-Net; every case is a patient"]
    if has_test:
        settings["split"] = {"test": "official"}
        assumed.append("labelsTs has masks of imagesTs, which are the test set")
    return Proposal(
        layout="nnU-Net", settings=settings, assumed=assumed, check=["whether cases are different patients"]
    )


def _coco(files: Files, documents: Mapping[str, dict[str, Any]]) -> Proposal:
    """Return the settings for the COCO file with the most masks whose images are there."""
    if not any(entry.get("segmentation") for file in documents.values() for entry in _entries(file, "annotations")):
        raise DataError(
            f"{files.root / next(iter(documents))} is a COCO file without segmentations; allowed: polygons or run "
            "lengths, as a study measures segmentation; use its boxes for pretraining beside data with masks, with "
            "`source: coco`"
        )
    usable = []
    for path, content in documents.items():
        masked = sum(bool(entry.get("segmentation")) for entry in _entries(content, "annotations"))
        folder = _image_folder(files, [str(entry.get("file_name", "")) for entry in _entries(content, "images")])
        if folder is not None:
            usable.append((masked, path, folder, content))
    if not usable:
        path = next(iter(documents))
        raise DataError(
            f"{files.root / path} is a COCO file whose images are not all below {files.root}; allowed: all of them; "
            "name the folder that contains images and file, or complete the download"
        )
    masked, path, folder, content = max(usable, key=lambda entry: entry[0])
    classes = [str(entry.get("name")) for entry in _entries(content, "categories")]
    others = [other for _, other, _, _ in usable if other != path]
    has_patients = any(entry.get("patient") for entry in _entries(content, "images"))
    unknown = [] if has_patients else ["patients: each image counts as one, as the file names none"]
    if others:
        unknown.append(f"{', '.join(others)}: one COCO file is read; merge them to read all")
    return Proposal(
        layout="COCO", settings={"source": "coco", "annotations": path, "images": folder},
        assumed=[f"{path}: {masked:,} masks of {', '.join(classes)} in {len(content['images']):,} images in {folder}"],
        unknown=unknown,
        check=[] if has_patients else ["whether several images are of one patient: then add `patient` to the images"],
    )  # fmt: skip


def _entries(content: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    entries = content.get(key)
    yield from (entry for entry in (entries if isinstance(entries, list) else []) if isinstance(entry, dict))


def _image_folder(files: Files, names: list[str]) -> str | None:
    """Return the folder below which all images are, None if some are missing."""
    known = set(files.images)
    folders = {path[: -len(names[0]) - 1] for path in files.images if names and path.endswith(f"/{names[0]}")}
    for folder in sorted(folders, key=lambda name: (name.count("/"), name)):
        if all(f"{folder}/{name}" in known for name in names):
            return folder
    return None
