"""Segmentation architectures by name. Planning reads this table: no torch here."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

LIBRARY = "models.architectures.library"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What an architecture asks of its backbone and its images.

    `module` has `parts(blueprint) -> Parts` and `model` is the library's class. With an `output_stride`
    below 32 the encoder is dilated. Image sides are multiples of `divisor` and at least `smallest`.
    """

    title: str
    module: str = LIBRARY
    model: str = ""
    output_stride: Literal[8, 16, 32] = 32
    depth: int = 5
    divisor: int = 32
    smallest: int = 32
    features: Literal["pyramid", "plain"] = "pyramid"
    half_stride: bool = False
    """Needs a feature map at stride 2, which hierarchical transformers lack."""
    own: bool = False
    """Brings its own encoder: `backbone: own`."""


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "unet": Architecture(title="U-Net (Ronneberger et al. 2015)", model="Unet"),
        "unetplusplus": Architecture(title="U-Net++ (Zhou et al. 2018)", model="UnetPlusPlus", half_stride=True),
        "manet": Architecture(title="MA-Net (Fan et al. 2020)", model="MAnet"),
        "linknet": Architecture(title="LinkNet (Chaurasia and Culurciello 2017)", model="Linknet", half_stride=True),
        "fpn": Architecture(title="Feature pyramid network (Kirillov et al. 2019)", model="FPN"),
        "pspnet": Architecture(title="PSPNet (Zhao et al. 2017)", model="PSPNet", depth=3, divisor=8),
        "deeplabv3": Architecture(title="DeepLabV3 (Chen et al. 2017)", model="DeepLabV3", output_stride=8, divisor=8),
        "deeplabv3plus": Architecture(
            title="DeepLabV3+ (Chen et al. 2018)", model="DeepLabV3Plus", output_stride=16, divisor=16
        ),
        "pan": Architecture(
            title="Pyramid attention network (Li et al. 2018)",
            model="PAN",
            output_stride=16,
            divisor=16,
            smallest=128,
        ),
        "upernet": Architecture(title="UPerNet (Xiao et al. 2018)", model="UPerNet"),
        "segformer": Architecture(title="SegFormer's decoder (Xie et al. 2021)", model="Segformer"),
        "dpt": Architecture(
            title="Dense prediction transformer (Ranftl et al. 2021)",
            module="models.architectures.dpt",
            features="plain",
            depth=4,
        ),
    }
)
