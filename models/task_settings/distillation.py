"""Settings of feature distillation, as written in a study file. Does not import torch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from models.settings import BaseModelSettings, NetworkPart, TaskSettings


class TeacherNetworkSettings(BaseModelSettings):
    """The backbone of a teacher. `size` is the side of the square images that it processes; None: that of the stage."""

    backbone: str
    size: Annotated[int, Field(ge=32, le=4096)] | None = None

    def shape(self, images: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the images that the teacher processes, for images of the stage of this shape."""
        return images if self.size is None else (self.size, self.size)


class FeatureDistillationSettings(TaskSettings):
    """Regression of the deepest features of a fixed teacher, from the same image (Wei et al. 2022)."""

    trains: ClassVar[tuple[NetworkPart, ...]] = ("encoder",)
    target: ClassVar[Literal["image"]] = "image"
    task: Literal["feature_distillation"] = "feature_distillation"
    teacher: TeacherNetworkSettings
