"""Settings of augmentation: presets and their overrides."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from datasets.augment_settings import PRESETS, VALUE_TRANSFORMS, AugmentSettings, StrongAugmentSettings
from datasets.loading.transforms.geometric import geometric_transforms
from datasets.loading.transforms.photometric import photometric_transforms


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_values_and_the_defaults_of_all_other_settings(name: str) -> None:
    settings = AugmentSettings.model_validate({"preset": name})
    assert settings.changed == PRESETS[name]
    assert settings.model_dump(exclude={"preset"}) == AugmentSettings(**PRESETS[name]).model_dump(exclude={"preset"})


def test_explicit_values_override_those_of_the_preset_including_0() -> None:
    settings = AugmentSettings.model_validate({"preset": "strong", "rotate": 5, "elastic": 0, "flip": 0.5})
    expected = {**PRESETS["strong"], "rotate": 5, "flip": 0.5}
    del expected["elastic"]
    assert settings.changed == expected


def test_only_explicit_values_count_as_set() -> None:
    written = {"preset": "light", "rotate": 5.0}
    assert AugmentSettings.model_validate(written).model_dump(exclude_unset=True) == written
    assert AugmentSettings().model_dump(exclude_unset=True) == {}
    light = AugmentSettings(preset="light")
    assert AugmentSettings.model_validate(light) is light


def test_stored_values_of_a_stage_are_read_back() -> None:
    settings = AugmentSettings.model_validate({"preset": "strong", "noise": 0, "crop": [0.1, 0.2]})
    stored: dict[str, Any] = TypeAdapter(AugmentSettings).dump_python(settings, mode="json")
    assert AugmentSettings.model_validate(stored) == settings


@pytest.mark.parametrize("name", PRESETS)
def test_no_preset_flips_rotates_or_mixes_images(name: str) -> None:
    assert not {"flip", "vertical_flip", "quarter_turns", "cutmix", "copy_paste"} & PRESETS[name].keys()


def test_strong_is_at_least_as_strong_as_light() -> None:
    assert all(PRESETS["strong"][key] >= value for key, value in PRESETS["light"].items())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "medium"}, "'light', 'strong', 'views' or 'photometric'"),
        ({"preset": ["light"]}, "'light', 'strong', 'views' or 'photometric'"),
        ({"preset": "light", "rotate": -5}, "greater than or equal to 0"),
        ({"preset": "light", "rotat": 5}, "Extra inputs"),
        ({"low_resolution": 0.5}, "is 0.5; allowed: a factor of 1 to 16 .*; write 2 if"),
        ({"hue": 0.6}, "less than or equal to 0.5"),
        ({"dropout": 1}, "less than 1"),
        ({"cutmix": 1.5}, "less than or equal to 1"),
    ],
)
def test_invalid_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AugmentSettings.model_validate(values)


def test_transforms_of_values_are_those_that_move_no_pixels() -> None:
    others = AugmentSettings.model_fields.keys() - {*VALUE_TRANSFORMS, "preset", "border"}
    values = {"low_resolution": 2.0}
    for name in VALUE_TRANSFORMS:
        settings = AugmentSettings(**{name: values.get(name, 0.1)})
        assert (len(geometric_transforms(settings, (32, 32))), len(photometric_transforms(settings))) == (0, 1)
    for name in others:
        assert not photometric_transforms(AugmentSettings(**{name: 0.5}))


def test_strong_views_have_transforms_of_values_by_default() -> None:
    assert StrongAugmentSettings().changed == PRESETS["photometric"]
    assert set(PRESETS["photometric"]) <= set(VALUE_TRANSFORMS)
    stored = StrongAugmentSettings(blur=1.0).model_dump(mode="json")
    assert StrongAugmentSettings.model_validate(stored) == StrongAugmentSettings(blur=1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rotate": 10}, r"rotate is 10, but all views .*; allowed: hue, .*, dropout; remove it, or set it in augment"),
        ({"cutmix": 0.5}, r"cutmix is 0.5, but all views of an image show the same pixels; allowed: hue"),
        (
            {"preset": "strong"},
            r"preset is strong, with rotate 20, but all views .*; allowed: preset photometric or null, hue, .*; remove",
        ),
        ({"preset": "strong", "rotate": 5}, r"^[^;]*rotate is 5, but all views"),
        ({"crop": [0.1, 0.2]}, r"crop is \(0.1, 0.2\), but all views"),
        ({"preset": "light"}, "preset is light, with rotate 10"),
    ],
)
def test_strong_views_move_no_pixels(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StrongAugmentSettings.model_validate(values)
