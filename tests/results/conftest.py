"""torchmetrics imports torchvision, which needs what `models.encoders.vision` declares first."""

import models.encoders.vision  # noqa: F401
