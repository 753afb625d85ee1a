"""torchmetrics imports torchvision, which needs what `models.vision` declares first."""

import models.vision  # noqa: F401
