"""Generate `backbones.json` from the installed libraries: `python -m models.catalog.table`. Downloads nothing.

Weights that the present table has pinned (`models.catalog.pins`) stay pinned.

A backbone is included only if a forward pass of its encoder works, on the meta device if possible, at image sides 64
and 160, or else at its native side.
"""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from models.catalog.pins import pins_of, read_table, with_pins, write_table
from models.catalog.registry import IMAGENET, Backbone
from models.encoders.library import PLAIN_DEPTH, plain, pyramid
from models.encoders.reach import new_parameters, prune, reached_parameters
from models.encoders.vision import smp, timm
from models.encoders.vision_transformer import VisionTransformerEncoder

library = smp.encoders.encoders
get_pretrained_cfg = timm.models.get_pretrained_cfg

CENTRED = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
DPN = ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3)
# Published with the weights on the hub; by prefix of the name.
STATISTICS = {"inception": CENTRED, "xception": CENTRED, "dpn": DPN}
SIDES = (64, 160)
CUT_DEPTH = 3
PYRAMID_OPTIONS: tuple[dict[str, object], ...] = ({}, {"strict_img_size": False})
PLAIN_OPTIONS: tuple[dict[str, object], ...] = ({"dynamic_img_size": True}, {})

Make = Callable[[], nn.Module]


def names() -> tuple[str, ...]:
    """Return all candidates: the library's encoders except deprecated ones, and those of timm as `tu-...`."""
    library_names = (name for name in library if not name.startswith("timm-") and not name.endswith("_dilated"))
    return (*library_names, *(f"tu-{name}" for name in timm.list_models()))


def describe(name: str) -> Backbone | None:
    """Return the row of one backbone, None if no decoder supports it."""
    native = get_pretrained_cfg(name[3:]).input_size[-1] if name.startswith("tu-") else None
    for options in PYRAMID_OPTIONS if name.startswith("tu-") else ({},):
        row = _pyramid(name, options, SIDES)
        if row is not None:
            return row
    row = _pyramid(name, {}, (native,)) if native else None
    if row is not None or not name.startswith("tu-"):
        return row
    return _plain(name, native)


def _pyramid(name: str, options: Mapping[str, object], sides: Sequence[int]) -> Backbone | None:
    encoder = _make(partial(pyramid, name, channels=3, options=options))
    if encoder is None:
        return None
    for side in sides:
        features = _features(encoder, side)
        if features is None or _strides(features, side) != [1, 2, 4, 8, 16, 32]:
            return None
    assert features is not None
    return _row(
        name,
        kind="pyramid",
        encoder=encoder,
        features=features,
        side=side,
        dilates=all(_dilates(name, options, stride, side) for stride in (8, 16)),
        cuts=_cuts(name, options, side),
        size=None if len(sides) > 1 else side,
        options=options,
    )


def _plain(name: str, native: int | None) -> Backbone | None:
    for options in PLAIN_OPTIONS:
        encoder = _make(partial(plain, name, channels=3, options=options))
        if not isinstance(encoder, VisionTransformerEncoder):
            continue
        stride = int(encoder.output_stride)
        fixed_side = None if options else native
        side = fixed_side or 4 * stride
        features = _features(encoder, side)
        if features is None or _strides(features[-PLAIN_DEPTH:], side) != [stride] * PLAIN_DEPTH:
            continue
        return _row(
            name,
            kind="plain",
            encoder=encoder,
            features=features,
            side=side,
            dilates=False,
            cuts=False,
            size=fixed_side,
            options=options,
        )
    return None


def _make(make: Make) -> nn.Module | None:
    """Create a model on the meta device, or on the CPU if its constructor reads tensor values."""
    for device in ("meta", "cpu"):
        try:
            with torch.device(device):
                return make().eval()
        except Exception as error:  # noqa: BLE001  (every library fails in its own way)
            if "meta" not in str(error):
                return None
    return None


def _features(encoder: nn.Module, side: int) -> list[Tensor] | None:
    device = next(encoder.parameters()).device
    try:
        with torch.device(device):
            return list(encoder(torch.zeros(1, 3, side, side)))
    except Exception:  # noqa: BLE001  (every library fails in its own way)
        return None


def _strides(features: Sequence[Tensor], side: int) -> list[int]:
    are_square = all(feature.ndim == 4 and feature.shape[-1] == feature.shape[-2] > 0 for feature in features)
    return [side // feature.shape[-1] for feature in features] if are_square else []


def _dilates(name: str, options: Mapping[str, object], output_stride: int, side: int) -> bool:
    encoder = _make(partial(pyramid, name, channels=3, output_stride=output_stride, options=options))
    features = _features(encoder, side) if encoder is not None else None
    expected = [min(2**power, output_stride) for power in range(6)]
    return features is not None and _strides(features, side) == expected


def _cuts(name: str, options: Mapping[str, object], side: int) -> bool:
    encoder = _make(partial(pyramid, name, channels=3, depth=CUT_DEPTH, options=options))
    features = _features(encoder, side) if encoder is not None else None
    if encoder is None or features is None:
        return False
    return _strides(features, side) == [2**power for power in range(CUT_DEPTH + 1)] and _prunes(encoder, features, side)


def _prunes(encoder: nn.Module, features: Sequence[Tensor], side: int) -> bool:
    prune(encoder, reached_parameters(*features))
    return _features(encoder, side) is not None


def _row(
    name: str,
    *,
    kind: Literal["pyramid", "plain"],
    encoder: nn.Module,
    features: list[Tensor],
    side: int,
    dilates: bool,
    cuts: bool,
    size: int | None,
    options: Mapping[str, object],
) -> Backbone | None:
    opening = tuple(new_parameters(features))
    if not _prunes(encoder, features, side):
        return None
    weights = _timm_weights(name[3:]) if name.startswith("tu-") else _library_weights(name)
    maps = features[1:] if kind == "pyramid" else features[-PLAIN_DEPTH:]
    mean, std = _statistics(name)
    return Backbone(
        features=kind,
        channels=tuple(feature.shape[1] for feature in maps),
        strides=tuple(side // feature.shape[-1] for feature in maps),
        stages=opening,
        dilates=dilates,
        cuts=cuts,
        size=size,
        options=dict(options),
        mean=mean,
        std=std,
        weights=weights,
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        licences=dict(_licences(weights)),
    )


def _statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if name.startswith("tu-"):
        settings = get_pretrained_cfg(name[3:])
        return tuple(settings.mean), tuple(settings.std)
    return next((statistics for prefix, statistics in STATISTICS.items() if name.startswith(prefix)), IMAGENET)


def _library_weights(name: str) -> dict[str, str]:
    settings = library[name]["pretrained_settings"]
    return {key: f"{entry['repo_id']}@{entry['revision']}" for key, entry in settings.items()}


def _timm_weights(name: str) -> dict[str, str]:
    """Return weights on the hub by tag of timm; `imagenet` is the default if it was trained on ImageNet.

    timm pins no revisions; `models.catalog.pins` does.
    """
    weights = {}
    for model_name in timm.list_pretrained(name):
        settings = get_pretrained_cfg(model_name)
        tag = model_name.partition(".")[2]
        if tag and settings.hf_hub_id == f"timm/{model_name}" and settings.hf_hub_filename is None:
            weights[tag] = f"{settings.hf_hub_id}@main"
    default = get_pretrained_cfg(name).tag
    if default in weights and any(part in default for part in ("in1k", "in12k", "in21k", "in22k")):
        return {"imagenet": weights[default], **weights}
    return weights


def _licences(weights: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the names of weights of timm whose licence is known, with the licence."""
    for name, identity in weights.items():
        repository, _, model = identity.partition("@")[0].partition("/")
        licence = get_pretrained_cfg(model).license if repository == "timm" else None
        if licence and licence != "unknown":
            yield name, licence


def main() -> None:
    """Write the table."""
    pins = pins_of(read_table())
    rows = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names():
            row = describe(name)
            if row is not None:
                rows[name] = asdict(row) | {"weights": with_pins(row.weights, pins)}
            sys.stderr.write(f"{name}: {'taken' if row is not None else 'left out'}\n")
    write_table(rows)


if __name__ == "__main__":
    main()
