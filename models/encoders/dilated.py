"""VGG and Xception with support for dilation; parameters have the names and shapes of the library's encoders."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import nn
from torch.overrides import TorchFunctionMode

from models.encoders.vision import smp

library = smp.encoders.encoders

XCEPTION_POOLED = {"block3": 16, "block12": 32}
XCEPTION_ORDER = (*(f"block{number}" for number in range(3, 13)), "conv3", "conv4")


def _dilate(convolution: nn.Conv2d, rate: int) -> None:
    padding = rate * (convolution.kernel_size[0] // 2)
    convolution.dilation = (rate, rate)
    convolution.padding = (padding, padding)


class SkipMatrixInit(TorchFunctionMode):
    """Skips the initialisation of matrices: VGG's classifier is discarded, but initialising it takes over a second."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  (as torch has it)
        """Call `function`, except for the initialisation of a matrix."""
        arguments = kwargs or {}
        if function in (nn.init.kaiming_uniform_, nn.init.normal_) and arguments["tensor"].dim() == 2:
            return arguments["tensor"]
        return function(*args, **arguments)


class DilatedVGGEncoder(smp.encoders.vgg.VGGEncoder):  # type: ignore[misc]
    """VGG whose poolings beyond the output stride keep the size (3x3, stride 1); later layers are dilated.

    Chen et al., DeepLab (2018), section 3.1.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401  (the library's)
        with SkipMatrixInit():
            super().__init__(*args, **settings)

    def make_dilated(self, output_stride: int) -> None:
        """Keep feature maps at `output_stride`, 8 or 16."""
        stride, rate = 1, 1
        for module in self.features:
            if isinstance(module, nn.MaxPool2d):
                stride *= 2
                if stride > output_stride:
                    module.kernel_size, module.stride, module.padding = 3, 1, 1
                    rate *= 2
            elif isinstance(module, nn.Conv2d):
                _dilate(module, rate)


class DilatedXceptionEncoder(smp.encoders.xception.XceptionEncoder):  # type: ignore[misc]
    """Xception whose blocks beyond the output stride do not downsample; later layers are dilated.

    Chen et al., DeepLabv3+ (2018), section 3.2.
    """

    def make_dilated(self, output_stride: int) -> None:
        """Keep feature maps at `output_stride`, 8 or 16."""
        rate = 1
        for name in XCEPTION_ORDER:
            block = getattr(self, name)
            for module in block.modules():
                if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                    _dilate(module, rate)
            if XCEPTION_POOLED.get(name, 0) > output_stride:
                block.skip.stride = (1, 1)
                cast(nn.MaxPool2d, block.rep[-1]).stride = 1
                rate *= 2


DILATED = {
    **{name: DilatedVGGEncoder for name in library if name.startswith("vgg")},
    "xception": DilatedXceptionEncoder,
}
# Registers the encoders with the library under new names; existing entries are unchanged.
library.update(
    {f"{name}_dilated": {**library[name], "encoder": encoder_class} for name, encoder_class in DILATED.items()}
)
