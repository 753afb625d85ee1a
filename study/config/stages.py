"""The `stages` section of a study file: task, data, optimization."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, ModelWrapValidatorHandler, field_validator, model_validator

from datasets.augment_settings import AugmentSettings, StrongAugmentSettings, ViewAugmentSettings
from datasets.settings import (
    Channels,
    FitName,
    ImageSettings,
    PatchSettings,
    PixelSpacing,
    PrepareSettings,
    Scale,
    Size,
)
from models.settings import (
    Adapt,
    AdversarialSettings,
    ClassificationSettings,
    LocalisationSettings,
    LoraSettings,
    MaskSettings,
    NetworkOptimizerSettings,
    ReconstructionSettings,
    ScheduleSettings,
)
from models.task_settings.consistency import ConsistencyBlock, ConsistencyMethod, ConsistencySettings
from models.task_settings.distillation import FeatureDistillationSettings, TeacherNetworkSettings
from models.task_settings.masking import MaskedReconstructionSettings
from models.task_settings.pseudo_labels import PseudoLabelSettings
from models.task_settings.views import ContrastiveSettings, SelfDistillationSettings
from models.task_settings.weak_labels import WeakLabelSettings
from study.config.compare import InitialWeights
from study.config.evaluation import ClassThreshold, Postprocess, Threshold, TtaName
from study.config.fields import Count, Positive, Seed, Settings, each_once
from study.config.recipes import RecipeName, mark_as_unset, with_recipe


class ImageOverride(Settings):
    """Image settings that a stage overrides."""

    size: Size | None = None
    channels: Channels | None = None
    fit: FitName | None = None
    scale: Scale | None = None
    spacing: PixelSpacing | None = None

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        if self.spacing is not None and self.scale is not None:
            raise ValueError(f"spacing is {self.spacing:g} and scale {self.scale:g}; allowed: one of them; remove one")
        return self

    def of(self, image: ImageSettings, prepare: PrepareSettings | None) -> ImageSettings:
        """Return the image settings of the study with the overrides of a stage; only patches are scaled."""
        changes = {name: getattr(self, name) for name in self.model_fields_set if getattr(self, name) is not None}
        if changes.get("fit", image.fit) != "patch":
            changes |= {"scale": 1.0, "spacing": None}
        elif "spacing" in changes or "scale" in changes:
            changes = {"scale": 1.0, "spacing": None} | changes
        return image.model_copy(update=changes | ({"prepare": prepare} if prepare is not None else {}))


class EarlyStopping(Settings):
    """Stop when the monitored score has not improved by `min_delta` for `patience` epochs."""

    patience: Count
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class WeightAverage(Settings):
    """Average of the weights during training.

    `swa` is stochastic weight averaging over the epochs after the fraction `start`, in place of the best epoch; `lr` is
    the constant learning rate of these epochs, in place of the schedule (None: the schedule continues). `ema` is an
    exponential moving average over all updates with this `decay`, which is validated and kept instead of the weights
    themselves; after t updates the decay is at most (1 + t) / (10 + t).
    """

    name: Literal["swa", "ema"] = "swa"
    start: Annotated[float, Field(ge=0, lt=1)] = 0.75
    lr: Annotated[float, Field(gt=0)] | None = None
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999

    @model_validator(mode="after")
    def _check_unused(self) -> Self:
        unused, other = (("decay",), "ema") if self.name == "swa" else (("start", "lr"), "swa")
        for key in unused:
            value, default = getattr(self, key), type(self).model_fields[key].default
            if value != default:
                raise ValueError(
                    f"{key} is {value} under {self.name}; allowed: under {other}; remove it, or set name: {other}"
                )
        return self

    def includes(self, epoch: int, epochs: int) -> bool:
        """Return whether stochastic weight averaging includes the end of an epoch, counted from 0."""
        return self.name == "swa" and epoch + 1 > self.start * epochs


class Balance(Settings):
    """Balance categories: an epoch has about `images` training images, equally many of each category.

    Repeated images get different augmentations. No image is left out: an epoch is longer if a category has more
    images than its share.
    """

    images: Count


class StageBase(Settings):
    """Settings of every stage. One epoch is one pass over its training images."""

    not_from_recipe: ClassVar[tuple[str, ...]] = ()
    """Dotted keys that keep their default under a recipe."""
    recipe: RecipeName | None = None
    """Named set of settings (`study.config.recipes`), which the other settings override."""
    data: str
    epochs: Count | None = None
    steps: Positive | None = None
    batch_size: Count = 8
    accumulate: Count = 1
    """Gradient accumulation: number of parts of a batch. Needs less memory; batch norm is computed per part."""
    optimizer: NetworkOptimizerSettings = NetworkOptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    early_stopping: EarlyStopping | None = None
    average: WeightAverage | None = None
    balance: Balance | None = None
    l2: Annotated[float, Field(ge=0)] = 0.0
    """Added to the loss: this x the sum of squares of every convolution kernel that trains."""
    augment: AugmentSettings = AugmentSettings()
    patch: PatchSettings = PatchSettings()
    """Which patches are used under `fit: patch`."""
    adapt: Adapt = "full"
    """Which part of the encoder is trained; `lora` stands for the default settings of LoRA."""
    precision: Literal["float32", "bf16"] = "float32"
    seed: Seed | None = None
    architecture: str | None = None
    backbone: str | None = None
    image: ImageOverride = ImageOverride()
    prepare: PrepareSettings | None = None
    """Overrides the study's `image.prepare`."""

    @model_validator(mode="wrap")
    @classmethod
    def _fill_recipe(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401 - raw document
        """Fill in the values of the recipe. They do not count as set, so that another recipe can replace them."""
        name = value.get("recipe") if isinstance(value, Mapping) else None
        if name is None or name not in get_args(RecipeName):
            return handler(value)
        settings = handler(with_recipe(value, name, excluded=cls.excluded_from_recipe(value)))
        mark_as_unset(settings, value)
        return settings

    @classmethod
    def excluded_from_recipe(cls, document: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the dotted keys that keep their default under a recipe, for the document of a stage."""
        return cls.not_from_recipe

    @field_validator("adapt")
    @classmethod
    def _complete_lora(cls, adapt: Adapt) -> Adapt:
        return LoraSettings() if adapt == "lora" else adapt

    @model_validator(mode="after")
    def _check_accumulate(self) -> Self:
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate is {self.accumulate} of batches of {self.batch_size}; allowed: at least one image a "
                "part; lower accumulate or raise batch_size"
            )
        return self

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            problem = "both are given" if self.epochs else "neither is given"
            raise ValueError(
                f"epochs or steps: {problem}; allowed: exactly one; `steps` gives every fraction equally many updates"
            )
        return self


class ReconstructionStage(StageBase, ReconstructionSettings):
    """An autoencoder stage."""


class MaskedReconstructionStage(StageBase, MaskedReconstructionSettings):
    """A stage of masked image modelling."""


class Teacher(TeacherNetworkSettings):
    """The network whose features a stage of feature distillation regresses."""

    initial_weights: InitialWeights
    """As those of the arms."""


class FeatureDistillationStage(StageBase, FeatureDistillationSettings):
    """A stage that learns the features of a fixed teacher."""

    teacher: Teacher


class ClassificationStage(StageBase, ClassificationSettings):
    """An image classification stage."""


class LocalisationStage(StageBase, LocalisationSettings):
    """A centre or box regression stage."""


class ViewStage(StageBase):
    """A stage that compares augmented views of images, which therefore are augmented by default."""

    not_from_recipe: ClassVar[tuple[str, ...]] = ("augment.preset",)
    augment: ViewAugmentSettings = ViewAugmentSettings()

    @model_validator(mode="after")
    def _check_augment(self) -> Self:
        if not self.augment.changed:
            raise ValueError(
                "augment changes nothing, so that the views of an image are equal; allowed: at least one transform; "
                "leave out augment.preset, or set preset: views"
            )
        return self


class ContrastiveStage(ContrastiveSettings, ViewStage):
    """A stage of contrastive learning."""


class SelfDistillationStage(SelfDistillationSettings, ViewStage):
    """A stage of self-distillation."""

    @model_validator(mode="after")
    def _check_early_stopping(self) -> Self:
        if self.early_stopping is not None:
            raise ValueError(
                "early_stopping is set under self_distillation, which keeps the last epoch, as its loss is also small "
                "for equal embeddings; allowed: under other tasks; remove it"
            )
        return self


class MaskStage(StageBase, MaskSettings):
    """A stage that learns masks. `threshold`, `tta` and `postprocess` override those of `evaluate`."""

    threshold: Threshold | None = None
    class_threshold: ClassThreshold | None = None
    tta: tuple[TtaName, ...] | None = None
    postprocess: Postprocess | None = None

    _each_once = field_validator("tta")(each_once)


class SegmentationStage(WeakLabelSettings, MaskStage):
    """A segmentation stage, which with `rest` also has a batch of images with weak labels in an update."""

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if self.rest != "none" and self.accumulate > 1:
            raise ValueError(
                f"accumulate is {self.accumulate} with rest: {self.rest}; allowed: 1, as gradients of batches with "
                "masks and with weak labels are not accumulated; remove it, set rest: none, or exclude the combination"
            )
        return self


class SemiSupervisedStage(MaskStage):
    """A stage that also learns from images without masks, with a batch of each kind in an update."""

    accumulate: Literal[1] = 1
    """Fixed at 1: gradients of batches with labelled and unlabelled images are not accumulated."""
    rest: Literal["none"] = "none"
    """Fixed: weak labels are not combined with the losses of unlabelled images."""

    @field_validator("rest", mode="before")
    @classmethod
    def _check_rest(cls, rest: object) -> object:
        if isinstance(rest, str) and rest != "none":
            raise ValueError(
                f"is {rest}; allowed: none, as weak labels are not combined with the losses of unlabelled images; "
                "remove it, or exclude the combination"
            )
        return rest


class AdversarialStage(AdversarialSettings, SemiSupervisedStage):
    """A stage of segmentation against a discriminator."""

    @model_validator(mode="after")
    def _check_unlabelled_start(self) -> Self:
        problem = unlabelled_start_problem(self, self.steps)
        if problem is not None:
            raise ValueError(f"adversarial.unlabelled_start {problem}")
        return self


class ConsistencyViews(ConsistencyBlock):
    """Which predictions of images without masks have to agree, and how strong views are augmented."""

    used_by: ClassVar[Mapping[str, tuple[ConsistencyMethod, ...]]] = {
        **ConsistencyBlock.used_by,
        "strong": ("mean_teacher", "fixmatch", "unimatch"),
    }
    strong: StrongAugmentSettings = StrongAugmentSettings()

    @model_validator(mode="after")
    def _check_views(self) -> Self:
        if self.method in self.used_by["confidence"] and not (self.cutmix or self.strong.changed):
            raise ValueError(
                f"strong changes nothing and cutmix is 0 under {self.method}, so that weak and strong views are equal; "
                "allowed: at least one transform, or cutmix above 0; leave out strong.preset, or raise cutmix"
            )
        return self

    @property
    def strong_augment(self) -> AugmentSettings:
        """Return the augmentation of strong views, nothing for methods without one."""
        return self.strong if self.method in self.used_by["strong"] else AugmentSettings()


class ConsistencyStage(ConsistencySettings, SemiSupervisedStage):
    """A stage of segmentation that also learns from the consistency of predictions."""

    consistency: ConsistencyViews = ConsistencyViews()

    @classmethod
    def excluded_from_recipe(cls, document: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the keys that keep their default: the teacher of `mean_teacher` is a moving average already."""
        block = document.get("consistency", {})
        default = ConsistencyViews.model_fields["method"].default
        is_averaged = isinstance(block, Mapping) and block.get("method", default) == "mean_teacher"
        return (*cls.not_from_recipe, "average") if is_averaged else cls.not_from_recipe

    @model_validator(mode="after")
    def _check_average(self) -> Self:
        if self.average is not None and self.consistency.method == "mean_teacher":
            raise ValueError(
                f"average is {self.average.name} under mean_teacher, which keeps its teacher, a moving average; "
                "allowed: under fixmatch, unimatch or cross_pseudo; remove it, or set consistency.momentum"
            )
        return self


class PseudoLabelStage(PseudoLabelSettings, SemiSupervisedStage):
    """A stage of segmentation that also learns from labels that the previous stage predicts."""


def unlabelled_start_problem(stage: AdversarialStage, updates: int | None) -> str | None:
    """Return an error message if images without masks start after all `updates` of a stage, else None."""
    start = stage.adversarial.unlabelled_start
    if updates is None or start < max(1, updates):
        return None
    return (
        f"is {start} of {updates} updates, so that no image without masks is used; allowed: fewer than {updates}; "
        "lower it, or train longer"
    )


Stage = (
    ReconstructionStage
    | MaskedReconstructionStage
    | FeatureDistillationStage
    | ContrastiveStage
    | SelfDistillationStage
    | ClassificationStage
    | LocalisationStage
    | SegmentationStage
    | AdversarialStage
    | ConsistencyStage
    | PseudoLabelStage
)


def _task_of(stage: type[StageBase]) -> str:
    task: str = get_args(stage.model_fields["task"].annotation)[0]
    return task


_SELF_SUPERVISED: tuple[type[StageBase], ...] = (
    MaskedReconstructionStage,
    FeatureDistillationStage,
    ContrastiveStage,
    SelfDistillationStage,
)
SELF_SUPERVISED_TASKS = frozenset(map(_task_of, _SELF_SUPERVISED))
"""Tasks whose stages may have warnings, such as of collapsed embeddings."""
MASK_TASKS = tuple(_task_of(stage) for stage in get_args(Stage) if issubclass(stage, MaskStage))
"""Tasks of stages that learn masks, with which a pathway can end."""
StageSettings = Annotated[Stage, Field(discriminator="task")]
