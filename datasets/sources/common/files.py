"""Base class of sources of image files: builds the index from tables and files, and decodes images and masks."""

import time
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import isnan
from pathlib import Path, PurePosixPath
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from datasets.cache import stored_index
from datasets.cache.decoded_volumes import DecodedVolumes
from datasets.cache.extracts import Extracts
from datasets.cache.manifest import FileState, Listing, Manifest, extracts_of, file_state, read_manifest, scan
from datasets.cache.stored_index import StoredIndex
from datasets.decoding.decode import Kind, content_hash, read
from datasets.decoding.spacing_json import stated_spacing
from datasets.errors import DataError
from datasets.settings import FileChannels, FileSettings, ImageSettings, VolumeSettings
from datasets.source import BACKGROUND, AnnotationKind, Box, Index, Pixels, Point, ProgressCallback, Source
from datasets.sources.common.class_ids import (
    IgnoreSettings,
    ScribbleIds,
    check_names,
    class_ids,
    outside_scribbles,
    scribble_ids,
)
from datasets.sources.common.complete import CompleteClasses
from datasets.sources.common.faults import case_faults, check_pixels, check_points
from datasets.sources.common.masks import (
    exclusive,
    is_masked,
    masks_digest,
    overlapping,
    overlapping_scribbles,
    regions,
    scribbles_digest,
    values_in,
)
from datasets.sources.common.published import MaskFile, PublishedCase, PublishedDataset
from datasets.sources.common.rows import (
    SourceRow,
    content_of,
    image_rows,
    rows_of,
    slice_digest,
    thumbnail_of,
)
from datasets.sources.common.shown import ShownClasses
from datasets.sources.common.tables import choose, digest

SLICED: Final[tuple[AnnotationKind, ...]] = ("masks", "scribbles")
"""Kinds of annotation of which each slice of a volume has its own."""


class FileSource(Source):
    """Source of files below a root, listed once on first use. Subclasses implement `_published`."""

    folders: ClassVar[Mapping[str, Kind]]
    user_layout: ClassVar[bool] = False
    """Whether the layout is arranged by users, so that files that are not read may be mistakes."""
    tables: ClassVar[Sequence[str]] = ()
    """All files that `_published` reads, set by large layouts, whose index is then cached.

    The tables must list all images: files that they do not name are not detected as changes.
    """

    def __init__(self, settings: FileSettings) -> None:
        self._settings = settings
        self._root = settings.root
        self._collection = settings.collection
        self._volume_settings = settings if isinstance(settings, VolumeSettings) else None
        self._extracts: Extracts | None = None
        self._files: Manifest | None = None
        self._same_content: set[tuple[str, FileState]] = set()
        """Files with a changed state but verified content."""
        self._ids: Mapping[str, int] | None = None
        self._all_ids: Mapping[str, int] = {}
        """Ids of all classes, chosen or not."""

    @abstractmethod
    def _published(self, listing: Listing) -> PublishedDataset:
        """Read the tables without opening image files. Raises `DataError` for invalid tables."""

    def _folders(self) -> Mapping[str, Kind]:
        return self.folders

    @cached_property
    def _listing(self) -> Listing:
        listing = self._scan()
        return replace(listing, channels=self._channels_in_files(listing))

    def _scan(self) -> Listing:
        """List the files, without opening them."""
        return scan(self._root, self._folders(), self._volume_settings)

    def _channels_in_files(self, listing: Listing) -> FileChannels | None:
        """Return the channels along a fourth axis of the volumes, None if images have three dimensions."""
        return None

    @property
    def file_channels(self) -> FileChannels | None:
        """Channels of files of four dimensions; see `Source.file_channels`."""
        return self._listing.channels

    @cached_property
    def _ignored(self) -> Sequence[int]:
        """Ids of unlabelled pixels."""
        chosen = self._settings.ignored_ids if isinstance(self._settings, IgnoreSettings) else ()
        return chosen or self._layout.ignored

    @cached_property
    def _tables(self) -> Mapping[str, FileState | None]:
        return {name: file_state(self._root / name) for name in self.tables}

    @cached_property
    def _layout(self) -> PublishedDataset:
        published = self._published(self._listing)
        for name, state in self._tables.items():  # a cached index may be older than these tables
            if file_state(self._root / name) != state:
                raise DataError(_changed_message(self._root / name))
        repeated = [name for name, count in Counter(case.id for case in published.cases).items() if count > 1]
        if repeated:
            raise DataError(
                f"{self._root}: {len(repeated)} ids stand for several images ({repeated[0]}); allowed: one image "
                "an id; rename or remove one"
            )
        return published

    @cached_property
    def _cases(self) -> list[PublishedCase]:
        return sorted(self._layout.cases, key=lambda case: case.id)

    @cached_property
    def _rows(self) -> Sequence[SourceRow]:
        """Rows of the index; `_build_index` sets them where files may be volumes, as only the manifest shows."""
        if self._volume_settings is not None:
            raise RuntimeError("the slices of volumes are known once the index is read: call index first")
        return image_rows(self._cases)

    @cached_property
    def _volumes(self) -> DecodedVolumes:
        files_per_row = max(
            (len(case.paths) + len(case.masks) + len(case.scribbles) for case in self._cases), default=1
        )
        return DecodedVolumes(
            self._read, 2 * files_per_row
        )  # threads may be at the end of one and the start of another

    @cached_property
    def _labels(self) -> tuple[int, ...]:
        names = choose(self._layout.labels, self._settings.labels, "labels", self._root)
        return tuple(self._layout.labels.index(name) for name in names)

    def index(
        self, cache: Path, progress: ProgressCallback | None = None, fits: Collection[ImageSettings] = ()
    ) -> Index:
        """Return the index; see `Source.index`."""
        index = self._load_or_build_index(cache, progress, fits)
        self._extracts = Extracts(extracts_of(self._listing, cache))
        return index

    def _load_or_build_index(
        self, cache: Path, progress: ProgressCallback | None, fits: Collection[ImageSettings]
    ) -> Index:
        if not self.tables or "_listing" in vars(self):
            return self._build_index(cache, progress, fits)
        path = stored_index.index_path(cache, self._settings)
        stored = stored_index.load(path, self._root, self._folders())
        if stored is None:
            start_ns, tables = time.time_ns(), self._tables  # before the tables are read
            index = self._build_index(cache, progress, fits)
            stored = StoredIndex(index=index, listing=self._listing, tables=tables)
            stored_index.save(stored, path, start_ns)
        self._listing, self._tables = stored.listing, stored.tables
        return stored.index

    def _build_index(self, cache: Path, progress: ProgressCallback | None, fits: Collection[ImageSettings]) -> Index:
        cases, layout = self._cases, self._layout
        if layout.is_excerpt:
            self._listing = self._listing.excerpt([path for case in cases for path in case.all_paths])
        self._files = files = read_manifest(self._listing, cache, progress, fits)
        self._rows = rows = rows_of(cases, files)
        check_pixels(cases, files, self._root)
        bits = [self._mask_ids(case, files) for case in cases]
        self._all_ids = by_id = self._class_ids(bits, files)
        known = layout.classes if layout.overlapping and layout.classes is not None else tuple(by_id)
        check_points(cases, known, self._root)
        boxed = {box.name for case in cases for box in case.boxes}
        chosen = choose([*known, *sorted(boxed.difference(known))], self._settings.classes, "classes", self._root)
        classes = tuple(name for name in chosen if name in known)
        check_names(classes, self._root)
        self._ids = {name: by_id[name] for name in classes if name in by_id}
        shown_classes = ShownClasses(layout=layout, files=files, classes=classes, ids=self._ids, ignored=self._ignored)
        shown = [shown_classes.shown(row) for row in rows]
        # Masks of regions hold ids of other names than the classes.
        mask_ids = {str(number): number for region in layout.regions for number in region} or by_id
        by_case = case_faults(cases, files, mask_ids, self._ignored, self._scribble_ids, layout)
        positions = [files.positions[row.case.path] for row in rows]
        return Index(
            ids=[row.id for row in rows],
            patients=[
                f"{self._collection}/{row.case.patient or files.patient[position] or f'image {row.case.id}'}"
                for row, position in zip(rows, positions, strict=True)
            ],
            categories=[row.case.category for row in rows],
            official=[row.case.official for row in rows],
            content=[content_of(row, files, self._volume_settings, self._listing.channels) for row in rows],
            thumbnails=[thumbnail_of(row, files) for row in rows],
            faults=[by_case.images[row.position] for row in rows],
            annotation_digests=self._annotation_digests(files, classes, chosen),
            annotation_faults={
                kind: [column[row.position] for row in rows] for kind, column in by_case.annotation.items()
            },
            classes=classes,
            overlapping=layout.overlapping,
            labels=tuple(layout.labels[number] for number in self._labels),
            structures=self._structures(chosen, boxed),
            remarks=["" if row.number else by_case.remarks[row.position] for row in rows],
            shown=shown,
            annotated=shown_classes.annotated(rows),
            complete=self._complete(files, classes).by_kind(rows),
            unused_classes=shown_classes.unused(shown),
            unread=tuple(self._listing.unread) if self.user_layout else (),
            heights=[files.height[position] for position in positions],
            widths=[files.width[position] for position in positions],
            channels=[sum(files.channels[files.positions[path]] for path in row.case.paths) for row in rows],
            has_colours=self._listing.channels is None and not any(case.channels for case in cases),
            volumes=[row.volume for row in rows] if any(row.volume for row in rows) else (),
            axes=[files.axis[position] for position in positions] if any(row.volume for row in rows) else (),
            spacings=_spacings(files, rows),
            excluded_from_training=self._excluded_from_training(rows, shown),
            collection=self._collection,
        )

    def _complete(self, files: Manifest, classes: tuple[str, ...]) -> CompleteClasses:
        names = {self._layout.labels[number]: number for number in self._labels}
        labels = {name: number for name, number in names.items() if name in classes}
        return CompleteClasses(files=files, classes=classes, labels=labels, scribbles=self._scribble_ids)

    def _class_ids(self, bits: Sequence[int], files: Manifest) -> Mapping[str, int]:
        """Return the id of each exclusive class; `bits` are the ids in the masks of each case."""
        if not self._layout.overlapping:
            masks = [mask_ids for case, mask_ids in zip(self._cases, bits, strict=True) if case.masks]
            masks += [values_in(mask, files) for case in self._cases for mask in case.other_masks]
            scribbles = [values_in(mask, files) for case in self._cases for mask in case.scribbles]
            if masks or not scribbles:
                return class_ids(masks, self._layout.classes, self._root, self._ignored)
            return class_ids(scribbles, self._layout.classes, self._root, outside_scribbles(self._ignored))
        if self._ignored and not self._layout.regions:
            self._check_foreground(files)
        return {}

    def _check_foreground(self, files: Manifest) -> None:
        """Raise `DataError` if the masks of a class hold 0 and ignored values, and no other value."""
        values_by_folder: dict[PurePosixPath, int] = defaultdict(int)
        for mask in (mask for case in self._cases for mask in case.masks if isinstance(mask, MaskFile)):
            values_by_folder[PurePosixPath(mask.path).parent] |= values_in(mask, files)
        ignored = sum(1 << value for value in self._ignored)
        for folder, values in sorted(values_by_folder.items()):
            if values & 1 and values & ignored and not values & ~(ignored | 1):
                raise DataError(
                    f"{self._root / folder}: ignore is {', '.join(map(str, self._ignored))}, and the masks hold no "
                    "other value above 0; allowed: another value inside of the class, such as 1; correct `ignore`, or "
                    "write the masks again"
                )

    def _excluded_from_training(self, rows: Sequence[SourceRow], shown: Sequence[str]) -> Sequence[bool]:
        """Return which slices show no class, if these are left out of training."""
        if self._volume_settings is None or self._volume_settings.slices == "all":
            return ()
        return [row.number is not None and bits == "0" for row, bits in zip(rows, shown, strict=True)]

    def _annotation_digests(
        self, files: Manifest, classes: tuple[str, ...], shown: tuple[str, ...]
    ) -> Mapping[AnnotationKind, Sequence[str]]:
        ids: Mapping[str, int | Sequence[int] | None] = {name: self._ids_of(name) for name in classes}
        values_in_scribbles = {name: self._scribble_ids.classes.get(name) for name in classes}
        names = [self._layout.labels[number] for number in self._labels]
        values = [[case.labels[number] for number in self._labels] if case.labels else [] for case in self._cases]
        boxes = [
            [(box.name, box.x, box.y, box.width, box.height) for box in case.boxes if box.name in shown]
            for case in self._cases
        ]
        by_case: Mapping[AnnotationKind, Sequence[str]] = {
            "labels": [digest(names, row) if not all(map(isnan, row)) else "" for row in values],
            "boxes": [
                digest(shown, row) if row or case.boxed else "" for case, row in zip(self._cases, boxes, strict=True)
            ],
            "centres": [digest(case.centres) if case.centres else "" for case in self._cases],
            "masks": [masks_digest(case, files, ids, self._ignored, self._listing.coding) for case in self._cases],
            "scribbles": [
                scribbles_digest(case, files, values_in_scribbles, self._scribble_ids.outside) for case in self._cases
            ],
            "points": [
                digest(classes, [(point.name, point.x, point.y) for point in points]) if points else ""
                for points in (self._chosen_points(case, classes) for case in self._cases)
            ],
        }
        digests: dict[AnnotationKind, Sequence[str]] = {
            kind: [column[row.position] for row in self._rows] for kind, column in by_case.items()
        }
        by_slice: dict[AnnotationKind, Sequence[str]] = {
            kind: [
                slice_digest(case_digest, row, files)
                for case_digest, row in zip(digests[kind], self._rows, strict=True)
            ]
            for kind in SLICED
        }
        return digests | by_slice

    @cached_property
    def _scribble_ids(self) -> ScribbleIds:
        """Values in scribbles, known once the index is read."""
        if self._layout.overlapping or not any(case.scribbles for case in self._cases):
            return ScribbleIds(classes={}, outside=outside_scribbles(self._ignored, [1]))
        return scribble_ids(self._all_ids, self._ignored, self._root)

    @property
    def _known_ids(self) -> Mapping[str, int]:
        """Ids of the selected exclusive classes."""
        if self._ids is None:
            raise RuntimeError("the ids of classes are known once the index is read: call index first")
        return self._ids

    def _ids_of(self, name: str) -> int | Sequence[int] | None:
        """Return the id or the ids of a class, None if it has separate masks."""
        return self._layout.region(name) if self._layout.regions else (self._ids or {}).get(name)

    def _structures(self, chosen: tuple[str, ...], shown: set[str]) -> tuple[str, ...]:
        centred = {name for case in self._cases for name, _, _ in case.centres}
        boxed = [name for name in chosen if name in shown]
        return (*boxed, *sorted(centred.difference(boxed)))

    def _mask_ids(self, case: PublishedCase, files: Manifest) -> int:
        """Return the bit set of ids in the masks of an image, 0 if classes overlap."""
        if self._layout.overlapping:
            return 0
        return next((values_in(mask, files) for mask in case.masks), 0)

    def image(self, row: int) -> Pixels:
        """Decode one image or slice; several channels are stacked as (height, width, channels)."""
        paths = self._rows[row].case.paths
        self._check_unchanged(paths)
        planes = [self._image_file(path, self._rows[row].number) for path in paths]
        return planes[0] if len(planes) == 1 else np.dstack(planes)

    def _image_file(self, path: str, number: int | None) -> Pixels:
        return self._read(path) if number is None else self._volumes.slice(path, number)

    def _read(self, path: str) -> Pixels:
        listing = self._listing
        return read(self._root / path, listing.kind(path), self._volume_settings, listing.channels, listing.coding)

    def release(self) -> None:
        """Free decoded volumes; see `Source.release`."""
        self._volumes.clear()

    def fitted(self, row: int, settings: ImageSettings) -> tuple[Pixels, tuple[int, int]] | None:
        """Return a cached resized image; see `Source.fitted`."""
        case, number = self._rows[row].case, self._rows[row].number
        if self._extracts is None or case.channels:
            return None
        extract = self._extracts.image(self._listing.state(case.path, number), settings)
        if extract is not None:
            self._check_unchanged([case.path])
        return extract

    def forget_fitted(self, settings: ImageSettings) -> None:
        """Delete the cached images; see `Source.forget_fitted`."""
        if self._extracts is not None:
            self._extracts.forget(settings)

    def _decoded(self, path: str, number: int | None) -> Pixels:
        """Decode a mask or one of its slices, or return it from the cache."""
        extract = self._extracts.mask(self._listing.state(path, number)) if self._extracts is not None else None
        return self._image_file(path, number) if extract is None else extract

    def _check_unchanged(self, paths: Iterable[str]) -> None:
        """Raise `DataError` for files changed since they were listed, as results are cached by the old content."""
        for path in paths:
            listed = self._listing.files.get(path)
            current = file_state(self._root / path)
            if listed is None or (current != listed and not self._has_listed_content(path, current)):
                raise DataError(_changed_message(self._root / path))

    def _has_listed_content(self, path: str, state: FileState | None) -> bool:
        """Return whether the content of a file with a changed state (copied, linked, other mode) is unchanged."""
        if state is None or self._files is None:
            return False
        if (path, state) not in self._same_content:
            content = content_hash(self._root / path)
            if content != self._files.content[self._files.positions[path]]:
                return False
            self._same_content.add((path, state))
        return True

    def labels(self, row: int) -> NDArray[np.float32]:
        """Return the selected labels, NaN if unknown."""
        values = self._rows[row].case.labels
        return np.array([values[number] if values else np.nan for number in self._labels], np.float32)

    def boxes(self, row: int) -> tuple[Box, ...]:
        """Return the boxes of the selected classes."""
        chosen = self._settings.classes
        return tuple(box for box in self._rows[row].case.boxes if chosen is None or box.name in chosen)

    def centres(self, row: int) -> Mapping[str, tuple[float, float]]:
        """Return the centre points by structure."""
        return {name: (x, y) for name, x, y in self._rows[row].case.centres}

    def masks(self, row: int) -> Pixels:
        """Return the masks of the selected classes; if classes overlap, classes without a file are empty."""
        case, number = self._rows[row].case, self._rows[row].number
        if not is_masked(case, self._files, self._chosen_classes(), self._ignored):
            raise DataError(
                f"{case.id} has no mask; allowed: rows whose annotation_digests['masks'] is not empty; leave it out"
            )
        self._check_unchanged(mask.path for mask in case.masks if isinstance(mask, MaskFile))

        def decode(path: str) -> Pixels:
            return self._decoded(path, number)

        if not self._layout.overlapping:
            return exclusive(decode, case.masks, [(number,) for number in self._known_ids.values()], self._ignored)
        classes = self._chosen_classes()
        if self._layout.regions:
            return regions(decode, case, [self._layout.region(name) for name in classes], self._ignored)
        return overlapping(decode, case, self._size(case), classes, self._ignored)

    def scribbles(self, row: int) -> Pixels:
        """Return the scribbles of the selected classes; see `Source.scribbles`."""
        case, number, layout = self._rows[row].case, self._rows[row].number, self._layout
        classes = self._chosen_classes()
        if not case.scribbles or (layout.overlapping and not any(mask.name in classes for mask in case.scribbles)):
            raise DataError(
                f"{case.id} has no scribbles; allowed: rows whose annotation_digests['scribbles'] is not empty; leave "
                "it out"
            )
        self._check_unchanged(mask.path for mask in case.scribbles)

        def decode(path: str) -> Pixels:
            return self._decoded(path, number)

        if layout.overlapping:
            return overlapping_scribbles(decode, case, classes, self._scribble_ids.outside)
        values = [self._scribble_ids.classes[name] for name in classes]
        return exclusive(decode, case.scribbles, values, self._scribble_ids.outside)

    def points(self, row: int) -> tuple[Point, ...]:
        """Return the points of the selected classes and of the background."""
        return self._chosen_points(self._rows[row].case, self._chosen_classes())

    def _chosen_points(self, case: PublishedCase, classes: Collection[str]) -> tuple[Point, ...]:
        return tuple(point for point in case.points if point.name in classes or point.name == BACKGROUND)

    def _chosen_classes(self) -> Sequence[str]:
        """Return the chosen classes of masks."""
        if not self._layout.overlapping:
            return list(self._known_ids)
        known = self._layout.classes or ()
        return [name for name in self._settings.classes or known if name in known]

    def _size(self, case: PublishedCase) -> tuple[int, int]:
        """Return width and height of the masks of an image with overlapping classes."""
        if case.size is not None:
            return case.size
        drawn = [mask.path for mask in case.masks if isinstance(mask, MaskFile)]
        path = drawn[0] if drawn else case.path
        files = self._files
        if files is not None and not files.fault[row := files.positions[path]]:
            return files.width[row], files.height[row]
        height, width = self._decoded(path, None).shape[:2]
        return width, height


def _changed_message(path: Path) -> str:
    return (
        f"{path} changed since it was indexed; allowed: unchanged files while a study runs; run the study again to "
        "plan with what is there now"
    )


def _spacings(files: Manifest, rows: Sequence[SourceRow]) -> Sequence[tuple[float, ...]]:
    """Return the spacing of each row; empty if that of no row is known."""
    spacings = []
    for row in rows:
        geometry = files.geometry(files.positions[row.case.path])
        stated = stated_spacing(row.case.spacing, geometry.slices, geometry.axis)
        spacings.append(stated if row.case.spacing else geometry.spacing)
    return spacings if any(spacings) else ()
