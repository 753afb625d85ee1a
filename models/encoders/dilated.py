"""VGG and Xception that can be dilated; undilated they are the library's, names and shapes of parameters too."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import nn
from torch.overrides import TorchFunctionMode

from models.encoders.vision import smp

library = smp.encoders.encoders

XCEPTION_POOLED = {"block3": 16, "block12": 32}
XCEPTION_ORDER = (*(f"block{number}" for number in range(3, 13)), "conv3", "conv4")


def _dilate(convolution: nn.Conv2d, rate: int) -> None:
    reach = rate * (convolution.kernel_size[0] // 2)
    convolution.dilation = (rate, rate)
    convolution.padding = (reach, reach)


class MatricesUndrawn(TorchFunctionMode):
    """Leaves matrices as allocated: VGG's classifier is thrown away, but drawing it took a second or more."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  (as torch has it)
        """Run every function but the drawing of a matrix's values."""
        given = kwargs or {}
        if function in (nn.init.kaiming_uniform_, nn.init.normal_) and given["tensor"].dim() == 2:
            return given["tensor"]
        return function(*args, **given)


class DilatedVGGEncoder(smp.encoders.vgg.VGGEncoder):  # type: ignore[misc]
    """VGG whose poolings beyond the output stride keep the size (3x3, stride 1); what follows is dilated.

    Chen et al., DeepLab (2018), section 3.1.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401  (the library's)
        with MatricesUndrawn():
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
    """Xception whose blocks beyond the output stride do not downsample; what follows is dilated.

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
# The library looks encoders up here by name; its own entries stay as they are.
library.update({f"{name}_dilated": {**library[name], "encoder": made} for name, made in DILATED.items()})
