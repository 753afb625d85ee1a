"""The entry: from a place to the settings of a data set."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from datasets.decoding.decode import suffix_of
from datasets.decoding.text import read_lines
from datasets.errors import DataError
from datasets.layout.files import Files, archived_names, endings_of, list_files, spread
from datasets.layout.formats import special_layout
from datasets.layout.pairing import Pairing, pair
from datasets.layout.patients import PATIENTS_TO_CHECK, patient_pattern
from datasets.layout.proposal import Proposal
from datasets.layout.published import published_layout
from datasets.layout.tables import part_lists, patient_table, read_class_table
from datasets.layout.values import looks_like_masks, sample_masks, value_settings
from datasets.layout.words import structure_of
from datasets.sources.folder.images import ImageFile, named, path_names

NNUNET: Final = "nnU-Net"
MIN_MASKED: Final = 0.9
"""Minimum share of images with a mask in folders beside a file of annotations that is then not read."""
LOOKED_AT: Final = 8
"""Number of images without a mask that are looked at."""
MAX_REMARKS: Final = 6
MAX_DEPTH: Final = 4
"""Maximum number of nested folders, each with nothing else, above a data set."""


def recognise(place: Path) -> tuple[Path, Proposal]:
    """Return the root of a data set and its settings.

    Args:
        place: A folder, a COCO file or an XML file of CVAT.

    Raises:
        DataError: There is no data set that can be read, or an archive; the message says what there is, and the
            remedy.
    """
    if not place.exists():
        raise DataError(f"{place} is not there; allowed: a folder, or a file of COCO or CVAT; correct the path")
    if place.is_dir():
        files = list_files(place)
        if not files.images and not files.others:
            raise DataError(f"{place} has no files; allowed: a folder with images and masks; name another one")
        if not files.images:
            raise DataError(
                f"{place} has {len(files.others):,} files, and no image ({endings_of(files.others)}); allowed: PNG, "
                f"JPEG, TIFF, BMP, GIF, WebP, DICOM or NIfTI files{_archive_hint(files)}; name the folder of the "
                "images, or convert them to PNG"
            )
        root = _inner(files)
        files = files if root == place else list_files(root)
        return root, published_layout(files) or _by_files(files)
    names = archived_names(place)
    if names is not None:
        raise DataError(
            f"{place} is an archive of {len(names):,} files; allowed: a folder, as images are read where they are; "
            "unpack it, and name the folder"
        )
    return _of_file(place)


def _of_file(place: Path) -> tuple[Path, Proposal]:
    """Return the settings for a COCO file, whose images are below its folder or beside it."""
    parents = [place.parent, place.parent.parent] if place.parent.name == "annotations" else [place.parent]
    root = parents[-1]
    files = list_files(root)
    proposal = (
        special_layout(files, place.relative_to(root).as_posix())
        if suffix_of(place.name) in (".json", ".xml")
        else None
    )
    if proposal is None:
        raise DataError(
            f"{place} is no file that is recognised; allowed: a folder, or a file of COCO or CVAT; name the folder "
            "of the images"
        )
    return root, proposal


def _archive_hint(files: Files) -> str:
    archives = files.named(".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
    return f", unpacked from {archives[0]}" if archives else ""


def _inner(files: Files) -> Path:
    """Return the folder in which nnU-Net's dataset.json is, or the root."""
    for path in files.others:
        if path.endswith("/dataset.json") and path.count("/") <= MAX_DEPTH:
            folder = path.removesuffix("dataset.json")
            if any(image.startswith(f"{folder}imagesTr/") for image in files.images):
                return files.root / folder
    return files.root


def _by_files(files: Files) -> Proposal:
    """Return the settings of a layout that a file describes, or of images and masks in folders.

    Masks of nearly all images count more than a file of annotations beside them.
    """
    described: Proposal | DataError | None
    try:
        described = special_layout(files)
    except DataError as error:
        described = error
    if described is None:
        return _folder(files, pair(files))
    if isinstance(described, DataError) or described.layout != NNUNET:
        try:
            pairing = pair(files)
        except DataError:
            pairing = None
        if pairing is not None and pairing.paired >= MIN_MASKED * len(pairing.image_paths):
            beside = files.named(".json", ".xml")
            names = ", ".join(beside[:3]) + (f" and {len(beside) - 3:,} more" if len(beside) > 3 else "")
            return _folder(
                files, pairing, [f"annotations in {names}, which are not read: nearly all images have masks"]
            )
    if isinstance(described, DataError):
        raise described
    return described


def _folder(files: Files, pairing: Pairing, remarks: Sequence[str] = ()) -> Proposal:
    """Return the settings of images and masks in folders."""
    classes = read_class_table(files)
    sample = sample_masks(files.root, pairing.mask_paths)
    if sample.faults and not sample.greys and not sample.colours:
        raise DataError(f"{files.root}: {sample.faults[0]}; allowed: readable masks; restore the download")
    by_class = any(pattern.has_classes for pattern in pairing.masks.values())
    values = value_settings(sample, classes, _structure(pairing), by_class=by_class)
    matches = pairing.matches()
    images = [ImageFile(id=match.key, path=path) for path, match in matches.items()]
    ids = path_names(images)
    masks: dict[str, object] = (
        {"masks": pairing.masks[""].text}
        if "" in pairing.masks
        else {"annotators": {name: pattern.text for name, pattern in pairing.masks.items()}}
    )
    settings: dict[str, object] = {"source": "folder", "images": pairing.images.text, **masks, **values.settings}
    assumed = [_pairs_text(pairing, len(images)), *values.assumed]
    unknown = [*files.remarks[:MAX_REMARKS], *remarks, *sample.faults, *values.unknown]
    check = [*pairing.check, *values.check]
    if len(pairing.masks) > 1:
        names = ", ".join(pairing.masks)
        assumed.append(f"masks of several annotators ({names}); those of {next(iter(pairing.masks))} are trained on")
    if by_class:
        unknown.append("whether a class without a mask in an image is absent from it (assumed), or not annotated")
    if pairing.left_out:
        unknown.append(f"files of {', '.join(pairing.left_out[:6])}, which are not read")
    alike = _unmasked_alike(files, pairing)
    if alike:
        check.append(f"{', '.join(alike)}: images without a mask that look like masks; if they are, move them away")
    _add_patients(files, settings, {match.key: match.name for match in matches.values()}, ids, assumed, check)
    _add_parts(files, pairing, settings, ids, assumed)
    return Proposal(
        layout="images and masks in folders", settings=settings, assumed=assumed, unknown=unknown, check=check
    )


def _unmasked_alike(files: Files, pairing: Pairing) -> list[str]:
    """Return some images without a mask that look like masks, such as second masks of an image."""
    masked = {
        match.key
        for path in pairing.mask_paths
        for pattern in pairing.masks.values()
        if (match := pattern.match(path)) is not None
    }
    masked |= {key.partition("/")[2] for key in masked if pairing.images.has_parts}
    unmasked = [path for path, match in pairing.matches().items() if not {match.key, match.name} & masked]
    sampled = spread(unmasked, LOOKED_AT)
    return [path for path in sampled if looks_like_masks(sample_masks(files.root, [path]))]


def _structure(pairing: Pairing) -> str:
    """Return the structure that the folder or the end of the names of the masks names, "" if none does."""
    if len(pairing.masks) > 1:
        return ""
    (pattern,) = pairing.masks.values()
    own = [part for part in re.split(r"/|\{[a-z]+\}|\*", pattern.text.rpartition(".")[0]) if part]
    others = re.split(r"/|\{[a-z]+\}|\*", pairing.images.text.rpartition(".")[0])
    return structure_of([part for part in own if part not in others])


def _pairs_text(pairing: Pairing, images: int) -> str:
    without = f", {images - pairing.paired:,} have none" if pairing.paired < images else ""
    return f"{pairing.paired:,} of {images:,} images have a mask{without}"


def _add_patients(
    files: Files,
    settings: dict[str, object],
    names: Mapping[str, str],
    ids: Mapping[str, str],
    assumed: list[str],
    check: list[str],
) -> None:
    """Add the key `patients` where a table or names show patients, else what to check."""
    table = patient_table(files, ids)
    if table is not None:
        settings["patients"] = table
        assumed.append(f"{table['table']} names the patient of each image in the column {table['patient']}")
        return
    found = patient_pattern(list(names.values()))
    if found is not None:
        settings["patients"] = found[0]
        assumed.append(found[1])
        check.append("whether these are patients")
        return
    if all(suffix_of(path) == ".dcm" for path in files.images):
        return
    folders = sorted({folder for name in names.values() if (folder := name.rpartition("/")[0])})
    if 1 < len(folders) < len(names):
        check.append(
            f"images lie in {len(folders)} folders ({', '.join(folders[:3])}{', ...' if len(folders) > 3 else ''}): if "
            'these are patients, set `patients: "^(.+)/"`, or test patients are in the training data too'
        )
        return
    check.append(PATIENTS_TO_CHECK)


def _add_parts(
    files: Files, pairing: Pairing, settings: dict[str, object], ids: Mapping[str, str], assumed: list[str]
) -> None:
    """Add the published parts, and a split by them where the test images have masks."""
    masked = {
        match.key
        for path in pairing.mask_paths
        for pattern in pairing.masks.values()
        if (match := pattern.match(path)) is not None
    }
    members: dict[str, set[str]] = {}
    if pairing.images.has_parts:
        for match in pairing.matches().values():
            members.setdefault(match.official, set()).add(match.key)
    else:
        lists = part_lists(files, ids)
        if "test" not in lists and "validation" in lists:
            lists["test"] = lists.pop("validation")
            assumed.append(f"there is no list of test images: {lists['test']}, of validation images, is the test set")
        if lists:
            settings["lists"] = dict(lists)
            for part, file in lists.items():
                members[part] = _listed(files.root / file, ids)
            assumed.append(f"{', '.join(lists.values())} list the published parts")
    names_masked = masked | {key.partition("/")[2] for key in masked}
    with_masks = {
        part: sum(key in masked or key.partition("/")[2] in names_masked or key in names_masked for key in keys)
        for part, keys in members.items()
    }
    split = {part: "official" for part in ("test", "validation") if with_masks.get(part)}
    if not with_masks.get("train") or "test" not in split:
        if members:
            assumed.append("published parts do not give a test set with masks beside training images: folds are used")
        return
    settings["split"] = split
    counts = Counter({part: len(keys) for part, keys in members.items()})
    assumed.append(
        f"published parts: {', '.join(f'{part or chr(45)} {count}' for part, count in counts.items())} images"
    )


def _listed(path: Path, ids: Mapping[str, str]) -> set[str]:

    return {image for line in read_lines(path) if (image := named(line, ids)) is not None}
