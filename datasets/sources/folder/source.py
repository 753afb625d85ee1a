"""User data: images, masks and optional tables, matched by name."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from datasets.cache.manifest import Listing
from datasets.decoding.decode import Kind
from datasets.errors import DataError
from datasets.settings import ImageSettings
from datasets.source import IGNORE, AnnotationKind, Box, Index, ProgressCallback, class_bits
from datasets.sources.common.files import FileSource
from datasets.sources.common.published import MaskFile, PublishedCase, PublishedDataset
from datasets.sources.common.tables import digest
from datasets.sources.folder.entries import SCRIBBLES, check_entries, check_folders, holds_images, visible_files
from datasets.sources.folder.groups import first_cases, listed_parts, patients_by_pattern, patients_in_table
from datasets.sources.folder.images import images_in_folder, path_names, stem_names
from datasets.sources.folder.masks import check_scribbled, class_names, listed_classes, masks_in
from datasets.sources.folder.pairs import Pairs, read_pairs
from datasets.sources.folder.patterns import Pattern, scan_patterns
from datasets.sources.folder.settings import UNLABELLED, FolderSettings, PatientTable
from datasets.sources.folder.tables import Tables
from datasets.weak.boxes import mask_boxes
from datasets.weak.centres import mask_centres


class FolderSource(FileSource):
    """Source of `FolderSettings`. Without `cases.csv` and `patients` each image counts as a separate patient."""

    user_layout = True

    def __init__(self, settings: FolderSettings) -> None:
        super().__init__(settings)
        self._folder_settings = settings
        self._mask_folders = settings.mask_folders
        self._annotated = settings.annotators is not None
        self._ignored_ids = settings.ignored_ids
        self._is_absent = settings.missing == "absent"
        self._coding = settings.coding
        self._index: Index | None = None

    @cached_property
    def _patterns(self) -> tuple[Pattern, tuple[Pattern, ...]] | None:
        """The patterns of images and of masks, None for images and masks in their folders."""
        images = self._folder_settings.images
        return None if images is None else (Pattern(images), tuple(map(Pattern, self._mask_folders)))

    @cached_property
    def _has_scribbles(self) -> bool:
        return self._patterns is None and SCRIBBLES not in self._mask_folders and (self._root / SCRIBBLES).is_dir()

    @cached_property
    def _is_by_class(self) -> bool:
        """Whether the masks of each class are in a folder of their own; of data without masks, the scribbles."""
        if self._patterns is not None:
            return any(pattern.has_classes for pattern in self._patterns[1])
        folders = [self._root / name for name in self._mask_folders]
        entries = [entry for folder in folders if folder.is_dir() for entry in folder.glob("[!.]*")]
        if not entries and self._has_scribbles:
            entries = list((self._root / SCRIBBLES).glob("[!.]*"))
        return any(map(holds_images, entries))

    @property
    def _mask_kind(self) -> Kind:
        return "foreground" if self._is_by_class and not self._ignored_ids else "ids"

    def _folders(self) -> Mapping[str, Kind]:
        folders: dict[str, Kind] = {"images": "image", **dict.fromkeys(sorted(self._mask_folders), self._mask_kind)}
        return folders | ({SCRIBBLES: "ids"} if self._has_scribbles else {})

    def _scan(self) -> Listing:
        if self._patterns is None:
            listing = super()._scan()
        else:
            images, masks = self._patterns
            kinds: dict[Pattern, Kind] = {images: "image", **dict.fromkeys(masks, self._mask_kind)}
            listing = scan_patterns(self._root, kinds, self._volume_settings)
        return replace(listing, coding=self._coding)

    def _pairs(self, listing: Listing) -> Pairs:
        """Return images and masks. Raises `DataError` for those that do not fit together."""
        if self._patterns is not None:
            return read_pairs(listing, *self._patterns)
        check_entries(self._root, self._mask_folders)
        if self._annotated:
            check_folders(self._root, self._mask_folders)
        images = images_in_folder(self._root, visible_files(listing, "images"))
        ids, overlapping = stem_names(self._root, images), self._is_by_class
        masks = tuple(
            masks_in(listing, folder, ids, overlapping=overlapping, lossy=self._coding is not None)
            for folder in self._mask_folders
        )
        return Pairs(images=images, masks=masks, names={image.id: image.id for image in images})

    def _published(self, listing: Listing) -> PublishedDataset:
        pairs, overlapping = self._pairs(listing), self._is_by_class
        if not overlapping and not self._is_absent:
            raise DataError(
                f"{self._root}: missing is not_annotated, without masks/<class>/; allowed: with masks/<class>/, or "
                "`ignore` for pixels without a label; remove `missing`"
            )
        ids = stem_names(self._root, pairs.images) if self._patterns is None else path_names(pairs.images)
        tables = Tables(self._root, ids, is_download=self._patterns is not None)
        masks, *others = pairs.masks or ({},)
        scribbles = masks_in(listing, SCRIBBLES, ids, overlapping=overlapping) if self._has_scribbles else {}
        labels, tags = tables.labels()
        boxes, centres, patients = tables.boxes(), tables.centres(), tables.patients()
        self._check_derived(boxes=bool(boxes), centres=bool(centres))
        named_patients, parts = (
            self._named_patients(pairs, ids),
            listed_parts(self._folder_settings.part_lists, ids, self._root),
        )
        points = tables.points(overlapping=overlapping)
        masked, scribbled = class_names([masks, *others]), class_names([scribbles])
        classes = self._folder_settings.value_classes or listed_classes(
            self._root, masked or scribbled, overlapping=overlapping
        )
        if self._folder_settings.mask_threshold is not None and not overlapping and len(classes or ()) > 1:
            raise DataError(
                f"{self._root}: mask_threshold makes one class, and classes.txt lists {len(classes or ())}; allowed: "
                "one class; remove mask_threshold, and name the values of the classes in `mask_values`"
            )
        if overlapping:
            check_scribbled(self._root, scribbled, classes or ())
        cases = [
            PublishedCase(
                id=stem,
                path=image.path,
                patient=named_patients.get(stem) or (patients[stem][0] if stem in patients else ""),
                category=patients[stem][1] if stem in patients else "",
                official=parts.get(stem, image.official),
                labels=tags.get(stem, ()),
                boxes=tuple(boxes[stem]),
                centres=tuple((name, x, y) for name, (x, y) in centres[stem].items()),
                masks=tuple(masks.get(stem, ())),
                not_annotated=self._not_annotated(masks.get(stem, ()), masked, classes or ()),
                scribbles=tuple(scribbles.get(stem, ())),
                points=tuple(points[stem]),
                other_masks=tuple(mask for other in others for mask in other.get(stem, ())),
            )
            for image in pairs.images
            for stem in [image.id]
        ]
        limit = self._folder_settings.limit
        return PublishedDataset(
            cases=cases if limit is None else first_cases(cases, limit),
            classes=classes,
            overlapping=overlapping,
            labels=labels,
            ignored=(IGNORE,) if UNLABELLED in (self._folder_settings.mask_values or ()) else (),
            is_excerpt=limit is not None,
        )

    def _named_patients(self, pairs: Pairs, ids: Mapping[str, str]) -> Mapping[str, str]:
        """Return the patient of each image if `patients` says where they are named."""
        patients = self._folder_settings.patients
        if patients is None:
            return {}
        if isinstance(patients, PatientTable):
            return patients_in_table(patients, ids, [image.id for image in pairs.images], self._root)
        return patients_by_pattern((patients,) if isinstance(patients, str) else patients, pairs.names, self._root)

    def _check_derived(self, **tables: bool) -> None:
        """Raise `DataError` for annotation that is derived from masks and listed in a table too."""
        for name, is_listed in tables.items():
            if is_listed and getattr(self._folder_settings, name) is not None:
                raise DataError(
                    f"{self._root / name}.csv is there, and {name} is 'from masks'; allowed: one of them; remove "
                    f"`{name}`"
                )

    def index(
        self, cache: Path, progress: ProgressCallback | None = None, fits: Collection[ImageSettings] = ()
    ) -> Index:
        """Return the index, with the annotation that is derived from masks; see `Source.index`."""
        index = super().index(cache, progress, fits)
        self._index = index
        if self._folder_settings.boxes is None and self._folder_settings.centres is None:
            return index
        masks = index.annotation_digests["masks"]
        digests: dict[AnnotationKind, Sequence[str]] = dict(index.annotation_digests)
        complete = dict(index.complete)
        if self._folder_settings.boxes is not None:
            digests["boxes"] = [digest("boxes", mask) if mask else "" for mask in masks]
            if not self._ignored:  # beside unlabelled pixels, components have no box
                rows = range(len(index))
                complete["boxes"] = [class_bits(index.classes, index.annotates(row)) for row in rows]
        if self._folder_settings.centres is not None:
            digests["centres"] = [
                digest("centres", mask) if mask and index.shows(row) else "" for row, mask in enumerate(masks)
            ]
        structures = tuple(dict.fromkeys((*index.classes, *index.structures)))
        return replace(index, annotation_digests=digests, complete=complete, structures=structures)

    def boxes(self, row: int) -> tuple[Box, ...]:
        """Return the boxes of the selected classes."""
        if self._folder_settings.boxes is None:
            return super().boxes(row)
        return mask_boxes(self.masks(row), self._masked_classes(row)) if self._masked_classes(row) else ()

    def centres(self, row: int) -> Mapping[str, tuple[float, float]]:
        """Return the centre points by structure."""
        if self._folder_settings.centres is None:
            return super().centres(row)
        return mask_centres(self.masks(row), self._masked_classes(row)) if self._masked_classes(row) else {}

    def _masked_classes(self, row: int) -> Sequence[str]:
        """Return the classes of the masks of a row, none for a row without masks."""
        if self._index is None:
            raise RuntimeError("the masks are known once the index is read: call index first")
        return self._index.classes if self._index.annotation_digests["masks"][row] else ()

    def _not_annotated(
        self, masks: Sequence[MaskFile], masked: Collection[str], classes: Sequence[str]
    ) -> frozenset[str]:
        """Return the overlapping classes that are not annotated in an image.

        Args:
            masks: The masks of the image.
            masked: Classes with masks in any image.
            classes: All classes.
        """
        if not masks or not self._is_by_class:
            return frozenset()
        without = frozenset(classes).difference(mask.name for mask in masks)
        return without.difference(masked) if self._is_absent else without
