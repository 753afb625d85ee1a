"""The contract of every source."""

import os
import shutil
from collections.abc import Callable
from operator import ne
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from datasets.cache import manifest
from datasets.cache.extracts import ExtractWriter
from datasets.decoding.decode import SUFFIXES, VOLUME_SUFFIXES, suffix_of
from datasets.errors import DataError
from datasets.settings import ImageSettings, PrepareSettings, VolumeSettings
from datasets.source import Index, Source
from datasets.sources import (
    SOURCES,
    CcxsSettings,
    ChexpertSettings,
    CocoSettings,
    CovidChestxraySettings,
    CovidLungBoxesSettings,
    DataSettings,
    FolderSettings,
    IdridSettings,
    NnunetSettings,
    PhantomSettings,
    PolygonSettings,
    SiimAcrSettings,
    SiimCovid19Settings,
    open_source,
)
from datasets.sources.common import files
from datasets.targets import fit_image
from tests.support.ccxs import write_ccxs
from tests.support.chexpert import write_chexpert
from tests.support.coco import write_coco
from tests.support.covid_chestxray import write_covid_chestxray
from tests.support.covid_lung_boxes import write_covid_lung_boxes
from tests.support.dicom import write_dicom
from tests.support.folder import write_folder
from tests.support.idrid import write_idrid
from tests.support.layouts import cvat, labelme
from tests.support.nnunet import write_nnunet, write_nnunet_2d
from tests.support.pictures import picture, save
from tests.support.siim_acr import write_siim_acr
from tests.support.siim_covid19 import write_siim_covid19
from tests.support.volumes import ct_volume, write_ct_folder, write_nifti

Make = Callable[[Path], DataSettings]


def _made(root: Path) -> Path:
    root.mkdir(parents=True)
    return root


MAKERS: dict[str, Make] = {
    "phantom": lambda root: PhantomSettings(images=12, patients=5, size=64),
    "folder": lambda root: FolderSettings(root=write_folder(root)),
    "folder, overlapping": lambda root: FolderSettings(root=write_folder(root, overlapping=True)),
    "ccxs": lambda root: CcxsSettings(root=write_ccxs(root)),
    "covid_lung_boxes": lambda root: CovidLungBoxesSettings(root=write_covid_lung_boxes(root)),
    "chexpert": lambda root: ChexpertSettings(root=write_chexpert(root)),
    "covid_chestxray": lambda root: CovidChestxraySettings(root=write_covid_chestxray(root)),
    "idrid": lambda root: IdridSettings(root=write_idrid(root), part="segmentation"),
    "folder, volumes": lambda root: FolderSettings(root=write_ct_folder(root)),
    "nnunet": lambda root: NnunetSettings(root=write_nnunet(root), channels=("FLAIR",)),
    "nnunet, images": lambda root: NnunetSettings(root=write_nnunet_2d(root, colour=True)),
    "siim_acr": lambda root: SiimAcrSettings(root=write_siim_acr(root)),
    "siim_covid19": lambda root: SiimCovid19Settings(root=write_siim_covid19(root)),
    "siim_covid19, converted": lambda root: SiimCovid19Settings(root=write_siim_covid19(root, suffix="png")),
    "coco": lambda root: CocoSettings(root=write_coco(root)),
    "polygons": lambda root: PolygonSettings(root=labelme(_made(root))),
    "polygons, one file": lambda root: PolygonSettings(root=cvat(_made(root)), annotations="annotations.xml"),
}

FILES = [name for name in MAKERS if name != "phantom"]


@pytest.fixture(params=MAKERS)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> DataSettings:
    return MAKERS[request.param](tmp_path / "data")


@pytest.fixture
def source(settings: DataSettings) -> Source:
    return open_source(settings)


@pytest.fixture
def index(source: Source, tmp_path: Path) -> Index:
    return source.index(tmp_path / "cache")


def test_every_source_is_tested(tmp_path: Path) -> None:
    assert {make(tmp_path / name).source for name, make in MAKERS.items()} == set(SOURCES)


def test_every_sequence_of_the_index_has_one_entry_for_each_image(index: Index) -> None:
    columns = (index.patients, index.categories, index.official, index.content, index.thumbnails, index.faults)
    assert {len(column) for column in (*columns, *index.annotation_digests.values())} == {len(index)}
    assert len(index.remarks) in (0, len(index))


def test_ids_are_sorted_and_unique(index: Index) -> None:
    assert list(index.ids) == sorted(set(index.ids))


def test_a_sound_data_set_has_no_faults(index: Index) -> None:
    assert not any(index.faults)


def test_patients_have_the_prefix_of_their_collection(settings: DataSettings, index: Index) -> None:
    assert all(patient.startswith(f"{settings.collection}/") for patient in index.patients)


def test_every_kind_of_annotation_has_a_column(index: Index) -> None:
    assert set(index.annotation_digests) == {"labels", "boxes", "centres", "masks", "scribbles", "points"}


def test_images_are_grey_or_rgb_of_8_bits(source: Source, index: Index) -> None:
    for row in range(len(index)):
        image = source.image(row)
        assert image.dtype == np.uint8
        assert image.ndim == 2 or image.shape[2:] == (3,)


def test_masks_fit_image_and_classes(source: Source, index: Index) -> None:
    for row in range(len(index)):
        if not index.annotation_digests["masks"][row]:
            with pytest.raises(DataError, match="has no mask"):
                source.masks(row)
            continue
        masks, shape = source.masks(row), source.image(row).shape[:2]
        assert masks.dtype == np.uint8
        assert masks.shape == ((len(index.classes), *shape) if index.overlapping else shape)
        assert masks.max() <= (1 if index.overlapping else len(index.classes))


def test_labels_are_offered_if_one_is_known(source: Source, index: Index) -> None:
    for row in range(len(index)):
        labels = source.labels(row)
        assert labels.dtype == np.float32
        assert labels.shape == (len(index.labels),)
        assert np.isin(labels[~np.isnan(labels)], (0, 1)).all()
        assert bool(index.annotation_digests["labels"][row]) == bool((~np.isnan(labels)).any())


def test_existing_boxes_and_centres_are_offered_and_inside_of_the_image(source: Source, index: Index) -> None:
    for row in range(len(index)):
        height, width = source.image(row).shape[:2]
        boxes, centres = source.boxes(row), source.centres(row)
        assert bool(index.annotation_digests["boxes"][row]) >= bool(boxes)
        assert bool(index.annotation_digests["centres"][row]) == bool(centres)
        assert {box.name for box in boxes} | set(centres) <= set(index.structures)
        for box in boxes:
            assert min(box.x, box.y) >= 0
            assert box.x + box.width <= width
            assert box.y + box.height <= height
        assert all(0 <= x <= width and 0 <= y <= height for x, y in centres.values())


def test_opening_again_gives_the_same_index_and_arrays(
    settings: DataSettings, source: Source, index: Index, tmp_path: Path
) -> None:
    again = open_source(settings)
    assert vars(again.index(tmp_path / "other cache")) == vars(index)
    assert np.array_equal(again.image(1), source.image(1))
    assert np.array_equal(again.labels(1), source.labels(1), equal_nan=True)


def test_rows_can_be_read_without_an_index_unless_files_may_be_volumes(
    settings: DataSettings, source: Source, index: Index
) -> None:
    if not isinstance(settings, VolumeSettings):
        assert np.array_equal(open_source(settings).image(2), source.image(2))
        return
    with pytest.raises(RuntimeError, match="call index first"):
        open_source(settings).image(2)


@pytest.mark.parametrize("name", FILES)
def test_extracts_of_indexing_equal_decoded_masks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = MAKERS[name](tmp_path / "data")
    fits = (ImageSettings(size=48), ImageSettings(size=32, channels=3, fit="letterbox"))
    other = ImageSettings(size=48, prepare=PrepareSettings(normalise=True))
    decoding, leaving = open_source(settings), open_source(settings)
    index = decoding.index(tmp_path / "decoding")
    shutil.rmtree(tmp_path / "decoding" / "prepared")
    leaving.index(tmp_path / "leaving", fits=fits)
    expected = {(row, fit): (fit_image(decoding.image(row), fit), decoding.image(row).shape[:2])
                for row in range(len(index)) for fit in fits}  # fmt: skip
    masks = {row: decoding.masks(row) for row in range(len(index)) if index.annotation_digests["masks"][row]}
    decoded: list[Path] = []
    monkeypatch.setattr(files, "read", lambda path, *_: decoded.append(path))
    for (row, fit), (pixels, shape) in expected.items():
        extract = leaving.fitted(row, fit)
        assert extract is not None
        assert np.array_equal(extract[0], pixels)
        assert extract[1] == shape
        assert leaving.fitted(row, other) is None
    assert all(np.array_equal(leaving.masks(row), expected) for row, expected in masks.items())
    assert not decoded
    leaving.forget_fitted(fits[0])
    assert leaving.fitted(0, fits[0]) is None
    assert leaving.fitted(0, fits[1]) is not None


@pytest.mark.parametrize("name", FILES)
def test_opening_again_reads_only_changed_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = MAKERS[name](tmp_path / "data")
    first = open_source(settings).index(tmp_path / "cache")
    read: list[str] = []
    inspect = manifest._inspect

    def counting(
        listing: manifest.Listing, path: str, writer: ExtractWriter, before: manifest.FileRow | None
    ) -> manifest.FileRow:
        read.append(path)
        return inspect(listing, path, writer, before)

    monkeypatch.setattr(manifest, "_inspect", counting)
    second = open_source(settings).index(tmp_path / "cache")
    assert (vars(second), read) == (vars(first), [])
    files = [path for path in (tmp_path / "data").rglob("*") if suffix_of(path.name) in SUFFIXES | VOLUME_SUFFIXES]
    path = min(path for path in files if "mask" not in str(path).lower() and "label" not in path.parent.name)
    stat = path.stat()
    _replace(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    third = open_source(settings).index(tmp_path / "cache")
    assert len(read) == 1
    assert path.as_posix().endswith(f"/{read[0]}")
    assert sum(map(ne, third.content, first.content)) == (first.volumes.count(first.volumes[0]) if first.volumes else 1)


def _replace(path: Path) -> None:
    if path.suffix == ".dcm":
        write_dicom(path, picture(999), bits=8)
    elif path.suffix == ".gz":
        write_nifti(path, ct_volume(999)[0], orientation="RAS")
    else:
        save(picture(999), path)


@pytest.mark.parametrize("name", ["phantom", "folder", "folder, overlapping", "ccxs", "idrid", "coco"])
def test_chosen_classes_are_reordered_in_the_masks_and_change_the_offer(name: str, tmp_path: Path) -> None:
    settings = MAKERS[name](tmp_path / "data")
    complete, all_classes = open_source(settings), open_source(settings).index(tmp_path)
    chosen = (all_classes.classes[1], all_classes.classes[0])
    part = open_source(settings.model_copy(update={"classes": chosen}))
    index = part.index(tmp_path)
    row = next(row for row, offer in enumerate(index.annotation_digests["masks"]) if offer)
    complete.index(tmp_path)
    before, after = complete.masks(row), part.masks(row)
    if index.overlapping:
        assert np.array_equal(after, before[[1, 0]])
    else:
        assert np.array_equal(after, np.array([0, 2, 1], np.uint8)[before])
    assert index.classes == chosen
    assert index.annotation_digests["masks"][row] != all_classes.annotation_digests["masks"][row]
    assert {box.name for box in part.boxes(row)} <= set(chosen)


@pytest.mark.parametrize("name", ["phantom", "folder", "ccxs", "covid_lung_boxes", "siim_acr", "siim_covid19", "coco"])
@pytest.mark.parametrize("key", ["classes", "labels"])
def test_an_unknown_name_is_refused_with_the_allowed_ones(name: str, key: str, tmp_path: Path) -> None:
    settings = MAKERS[name](tmp_path / "data").model_copy(update={key: ("spleen",)})
    with pytest.raises(DataError, match=rf"{key}: \['spleen'\] not in .*; allowed: .*; choose"):
        open_source(settings).index(tmp_path / "cache")


def test_chosen_labels_are_reordered(tmp_path: Path) -> None:
    settings = FolderSettings(root=write_folder(tmp_path / "data"), labels=("old", "ill"))
    source = open_source(settings)
    assert source.index(tmp_path).labels == ("old", "ill")
    assert source.labels(0).tolist() == [0, 1]


def test_settings_are_discriminated_by_their_source() -> None:
    parsed = TypeAdapter(DataSettings).validate_python({"source": "phantom", "images": 3, "patients": 2})
    assert parsed == PhantomSettings(images=3, patients=2)
    with pytest.raises(ValidationError, match="source"):
        TypeAdapter(DataSettings).validate_python({"source": "spectre"})


def test_a_missing_root_is_refused_with_a_remedy(tmp_path: Path) -> None:
    for settings in (FolderSettings(root=tmp_path / "no"), CcxsSettings(root=tmp_path / "no")):
        with pytest.raises(DataError, match=r"no is no folder; allowed: .*; .*download"):
            open_source(settings).index(tmp_path)


def test_a_file_whose_mode_changes_during_a_study_is_still_read(tmp_path: Path) -> None:
    root = write_ccxs(tmp_path / "data")
    source = open_source(CcxsSettings(root=root))
    index = source.index(tmp_path / "cache")
    row = next(row for row in range(len(index)) if index.annotation_digests["masks"][row])
    before = source.masks(row)
    for mask in (root / "masks").iterdir():
        mask.chmod(0o600)
    assert np.array_equal(source.masks(row), before)


def test_a_mask_in_a_table_without_a_file_is_reported(tmp_path: Path) -> None:
    root = write_ccxs(tmp_path / "data")
    mask = min((root / "masks").iterdir())
    mask.unlink()
    source = open_source(CcxsSettings(root=root))
    index = source.index(tmp_path / "cache")
    (row,) = [row for row in range(len(index)) if index.fault(row)]
    with pytest.raises(DataError, match=f"{mask.name} changed since it was indexed"):
        source.masks(row)
