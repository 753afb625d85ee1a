"""Table of segmentation architectures. Used by planning, so it does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from models.settings import Upsampling

LIBRARY = "models.architectures.library"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """An architecture and its requirements of backbone and images.

    `module` defines `parts(blueprint) -> Parts`; `model` is the class in the library. With an `output_stride` below 32
    the encoder is dilated. Image sides are multiples of `divisor` and at least `smallest`; an architecture that defines
    its encoder takes other sides too, as `Network` pads images to the next multiple. `upsampling` lists the upsampling
    methods of the decoder, the published one first.
    """

    title: str
    module: str = LIBRARY
    model: str = ""
    output_stride: Literal[8, 16, 32] = 32
    depth: int = 5
    divisor: int = 32
    smallest: int = 32
    features: Literal["pyramid", "plain", "any"] = "pyramid"
    """`pyramid`: feature maps at falling resolution, which `models.architectures.feature_pyramid` makes from those of a
    plain vision transformer; `plain`: the maps of a plain vision transformer; `any`: both."""
    half_stride: bool = False
    """Requires a feature map at stride 2, which hierarchical transformers lack."""
    upsampling: tuple[Upsampling, ...] = ("bilinear",)
    rates: tuple[int, ...] = ()
    """Rates of the atrous spatial pyramid, if the library's defaults are for a different output stride."""
    levels: str = ""
    """Name of the decoder's list of levels, if these can be supervised: modules with an output map, the finest last."""
    pools: bool = False
    """Applies batch norm to a global average, so that it needs at least two training images per batch."""
    own_encoder: bool = False
    """Defines its encoder (`backbone: own`); the module then also defines `encoder(blueprint) -> nn.Module`."""
    stages: int = 0
    """Number of stages of that encoder that can be frozen."""
    backbones: tuple[str, ...] = ()
    """Named backbones equal to that encoder, accepted because published weights exist for them."""


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "unet": Architecture(
            title="U-Net (Ronneberger et al. 2015)",
            model="Unet",
            upsampling=("nearest", "bilinear", "transposed"),
            levels="blocks",
        ),
        "unetplusplus": Architecture(
            title="U-Net++ (Zhou et al. 2018)",
            model="UnetPlusPlus",
            half_stride=True,
            upsampling=("nearest", "bilinear"),
        ),
        "manet": Architecture(
            title="MA-Net (Fan et al. 2020)", model="MAnet", upsampling=("nearest", "bilinear"), levels="blocks"
        ),
        "linknet": Architecture(
            title="LinkNet (Chaurasia and Culurciello 2017)",
            model="Linknet",
            half_stride=True,
            upsampling=("transposed",),
            levels="blocks",
        ),
        "fpn": Architecture(
            title="Feature pyramid network (Kirillov et al. 2019)", model="FPN", upsampling=("nearest", "bilinear")
        ),
        "pspnet": Architecture(title="PSPNet (Zhao et al. 2017)", model="PSPNet", depth=3, divisor=8),
        "deeplabv3": Architecture(
            title="DeepLabV3 (Chen et al. 2017)", model="DeepLabV3", pools=True, output_stride=8, divisor=8
        ),
        "deeplabv3plus": Architecture(
            title="DeepLabV3+ (Chen et al. 2018)",
            model="DeepLabV3Plus",
            pools=True,
            output_stride=16,
            divisor=16,
            rates=(6, 12, 18),
        ),
        "pan": Architecture(
            title="Pyramid attention network (Li et al. 2018)",
            model="PAN",
            pools=True,
            output_stride=16,
            divisor=16,
            smallest=128,
            upsampling=("bilinear", "nearest"),
        ),
        "upernet": Architecture(title="UPerNet (Xiao et al. 2018)", model="UPerNet", pools=True),
        "segformer": Architecture(title="SegFormer's decoder (Xie et al. 2021)", model="Segformer"),
        "dpt": Architecture(
            title="Dense prediction transformer (Ranftl et al. 2021)",
            module="models.architectures.dpt",
            features="plain",
            depth=4,
        ),
        "linear": Architecture(
            title="Linear layer on the deepest feature map (as in Oquab et al. 2023)",
            module="models.architectures.pixel_heads",
            features="any",
        ),
        "mlp": Architecture(
            title="Perceptron with one hidden layer on four feature maps",
            module="models.architectures.pixel_heads",
            features="any",
        ),
        "unet_plain": Architecture(
            title="U-Net as first published, padded (Ronneberger et al. 2015)",
            module="models.architectures.unet_plain",
            own_encoder=True,
            stages=5,
            divisor=16,
            upsampling=("transposed", "nearest", "bilinear"),
            levels="levels",
        ),
        "xnet": Architecture(
            title="XNet (Bullock et al. 2019)",
            module="models.architectures.xnet",
            own_encoder=True,
            stages=4,
            divisor=8,
            upsampling=("nearest", "bilinear", "transposed"),
            levels="second_up",
        ),
        "segnet": Architecture(
            title="SegNet (Badrinarayanan et al. 2017)",
            module="models.architectures.segnet",
            own_encoder=True,
            stages=5,
            backbones=("vgg16_bn",),
            upsampling=("unpool",),
        ),
        "segnet_basic": Architecture(
            title="SegNet-Basic (Badrinarayanan et al. 2017)",
            module="models.architectures.segnet_basic",
            own_encoder=True,
            stages=4,
            divisor=16,
            upsampling=("unpool",),
        ),
        "segnet_plain": Architecture(
            title="SegNet simplified, with plain upsampling (Bullock et al. 2019)",
            module="models.architectures.segnet_plain",
            own_encoder=True,
            stages=4,
            divisor=8,
            upsampling=("nearest", "bilinear", "transposed"),
        ),
    }
)
