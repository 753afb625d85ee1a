"""Checks of a study file that need no data."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.util import find_spec

from datasets.loading.batches import updates_per_epoch
from models.adversarial.patches import discriminator_problem
from models.architectures import ARCHITECTURES
from models.catalog import registry
from models.catalog.masking import masking_problem
from models.settings import NetworkPart, is_deeply_supervised, upsampling_of
from models.task_settings.consistency import consistency_of
from models.task_settings.masking import mask_side
from models.task_settings.views import views_of
from study.config.compare import STAGE_FACTORS
from study.config.schema import StudySpec
from study.config.stages import (
    MASK_TASKS,
    AdversarialStage,
    MaskedReconstructionStage,
    MaskStage,
    SelfDistillationStage,
    unlabelled_start_problem,
)
from study.errors import Problem, unknown
from study.planning.arms import FIXED_FACTORS, OWN, Arm, StageConfig, assignments, matches, text_of
from study.planning.checks.weak_label_checks import pseudo_label_problems, weak_label_problems
from study.planning.graph import Plan, examples_per_epoch


def reference_problems(spec: StudySpec, named: Mapping[str, Collection[str]]) -> Iterator[Problem]:
    """Yield undefined names. `named` has all names that the file defines, including those of invalid entries."""
    for name, stage in spec.stages.items():
        if stage.data not in named["data"]:
            yield Problem(path=f"stages.{name}.data", message=unknown("data", stage.data, named["data"]))
    for name, links in spec.pathways.items():
        for position, link in enumerate(links):
            if link.stage not in named["stages"]:
                message = unknown("stage", link.stage, named["stages"])
                yield Problem(path=f"pathways.{name}[{position}]", message=message)
    for position, pathway in enumerate(spec.compare.pathway or ()):
        if pathway not in named["pathways"]:
            message = unknown("pathway", pathway, named["pathways"])
            yield Problem(path=f"compare.pathway[{position}]", message=message)
    heads = [*named["stages"], "target", "image"]
    for path in spec.compare.factors:
        if path not in STAGE_FACTORS and path.partition(".")[0] not in heads:
            yield Problem(path=f"compare.{path}", message=unknown("stage", path.partition(".")[0], heads))
    names = [*FIXED_FACTORS, *(key for key in named["compare"] if "." in key or key in STAGE_FACTORS)]
    for key in ("baseline", "exclude", "include"):
        for position, rule in enumerate(getattr(spec.compare, key)):
            path = f"compare.{key}[{position}]"
            for name in rule:
                if name not in names:
                    yield Problem(path=f"{path}.{name}", message=unknown("factor", name, names))
            pathway = rule.get("pathway")
            if pathway is not None and pathway not in named["pathways"]:
                yield Problem(path=f"{path}.pathway", message=unknown("pathway", pathway, named["pathways"]))


def tracking_problems(spec: StudySpec) -> Iterator[Problem]:
    """Yield trackers whose package is not installed."""
    if spec.tracking.mlflow is not None and find_spec("mlflow") is None:
        message = "needs the package mlflow, which is not installed; allowed: with it; pip install "
        yield Problem(path="tracking.mlflow", message=f'{message}"segmentation-study[mlflow]", or remove the key')


def worker_problems(spec: StudySpec) -> Iterator[Problem]:
    """Yield stages with fewer images in a batch than workers."""
    workers = spec.resources.workers
    for name, stage in spec.stages.items():
        if stage.batch_size < workers:
            message = (
                f"is {stage.batch_size} for {workers} workers; allowed: at least one image a worker; raise it or lower "
                "resources.workers"
            )
            yield Problem(path=f"stages.{name}.batch_size", message=message)


def name_problems(spec: StudySpec) -> Iterator[Problem]:
    """Yield unknown backbones; `arm_problems` checks whether the known ones fit."""
    compare = spec.compare
    named = [(f"compare.backbone[{position}]", name) for position, name in enumerate(compare.backbone)]
    named += [
        (f"compare.include[{position}].backbone", rule["backbone"])
        for position, rule in enumerate(compare.include)
        if "backbone" in rule
    ]
    for path, name in named:
        if not is_known(name):
            message = registry.problem(None, name, shape=spec.image.shape)
            yield Problem(path=path, message=str(message))


def is_known(backbone: str) -> bool:
    """Return whether a backbone of this name exists."""
    return backbone == OWN or backbone in registry.backbones()


def pathway_problems(spec: StudySpec) -> Iterator[Problem]:
    """Yield pathways that do not end in a mask stage, or that end on different targets."""
    targets: dict[str, str] = {}
    for name, links in spec.pathways.items():
        last = spec.stages.get(links[-1].stage)
        if last is None:
            continue
        if not isinstance(last, MaskStage):
            message = (
                f"ends in {links[-1].stage}, a {last.task} stage; allowed: a stage with task "
                f"{', '.join(MASK_TASKS)}; add one at its end"
            )
            yield Problem(path=f"pathways.{name}", message=message)
        elif last.target != "mask":
            message = f"ends in {links[-1].stage}, which learns {last.target}; allowed: target mask; add such a stage"
            yield Problem(path=f"pathways.{name}", message=message)
        else:
            targets.setdefault(last.data, name)
        if links[0].carry != "encoder":
            message = f"is {links[0].carry}, but there is no stage before it; allowed: on later stages; remove carry"
            yield Problem(path=f"pathways.{name}[0].carry", message=message)
    if len(targets) > 1:
        ends = ", ".join(f"{pathway} on {data}" for data, pathway in targets.items())
        message = f"they end on different data ({ends}); allowed: one target for all; split the study"
        yield Problem(path="pathways", message=message)


def rule_problems(spec: StudySpec) -> Iterator[Problem]:
    """Yield `exclude` rules that match no combination."""
    rows = assignments(spec.model_copy(update={"compare": spec.compare.model_copy(update={"exclude": ()})}))
    for position, rule in enumerate(spec.compare.exclude):
        is_valid = rule.keys() <= rows[0].keys() and rule.get("pathway", rows[0]["pathway"]) in spec.pathways
        if is_valid and not any(matches(row, rule) for row in rows):
            values = {name: text_of(value) for name, value in rule.items()}
            message = f"{values} excludes nothing; allowed: values that `compare` has; correct or remove it"
            yield Problem(path=f"compare.exclude[{position}]", message=message)


def target_names(spec: StudySpec) -> set[str]:
    """Return the names of the data sets that pathways end on (exactly one in a valid study)."""
    ends = {links[-1].stage for links in spec.pathways.values()}
    return {spec.stages[name].data for name in ends if name in spec.stages}


def factor_problems(spec: StudySpec, arms: Iterable[Arm]) -> Iterator[Problem]:
    """Yield factors that change the target of an arm, and undefined data."""
    target_factors = [
        f"compare.{path}" for path in spec.compare.factors if path.rpartition(".")[2] in ("data", "task", "target")
    ]
    if not target_factors:
        return
    for arm in arms:
        last = arm.chain[-1]
        before = spec.stages[last.stage]
        if (last.settings.data, last.settings.target) != (before.data, before.target):
            message = (
                f"makes the target {last.settings.data}, {last.settings.target}; allowed: {before.data}, "
                f"{before.target}, the same for all; make a study for each"
            )
            yield Problem(path=target_factors[0], message=message)
        for step in arm.chain:
            if step.settings.data not in spec.data and step.settings.data != spec.stages[step.stage].data:
                yield Problem(path=target_factors[0], message=unknown("data", step.settings.data, spec.data))


def arm_problems(arms: Iterable[Arm]) -> Iterator[Problem]:
    """Yield networks that cannot be built and links that carry untrained parts; each problem once."""
    seen: set[tuple[object, ...]] = set()
    for arm in arms:
        before: StageConfig | None = None
        for position, step in enumerate(arm.chain):
            key = (arm.factors["pathway"], position, id(step), id(before))
            if key not in seen:
                seen.add(key)
                path = f"pathways.{arm.factors['pathway']}[{position}]"
                yield from _network_problems(step)
                yield from _patch_problems(step)
                yield from _augment_problems(step)
                yield from weak_label_problems(step)
                yield from pseudo_label_problems(path, before, step)
                if builds(step):
                    yield from _batch_problems(step)
                    yield from _local_view_problems(step)
                    yield from _freeze_problems(path, step)
                    yield from _equal_networks_problems(path, step) if before else ()
                    yield from _link_problems(path, before, step) if before and builds(before) else ()
            before = step


def builds(step: StageConfig) -> bool:
    """Return whether the network of a stage can be built."""
    return _network_problem(step) is None


def _network_problem(step: StageConfig) -> str | None:
    settings, shape = step.settings, step.image.shape
    problem = registry.problem(
        step.architecture, step.backbone, shape=shape, upsampling=upsampling_of(settings),
        deep_supervision=is_deeply_supervised(settings),
    )  # fmt: skip
    if problem is None and isinstance(settings, AdversarialStage):
        return discriminator_problem(settings.adversarial.discriminator, shape=shape)
    if problem is None and isinstance(settings, MaskedReconstructionStage):
        return _masking_problem(settings, step.backbone, shape)
    return problem


def _masking_problem(settings: MaskedReconstructionStage, backbone: str, shape: tuple[int, int]) -> str | None:
    if settings.method == "mae":
        return masking_problem(backbone, shape)
    if mask_side(settings, shape) < max(shape):
        return None
    size = registry.size_text(shape)
    return f"mask_size is {settings.mask_size} for images of {size} pixels; allowed: below their side; lower it"


def _local_view_problems(step: StageConfig) -> Iterator[Problem]:
    """Yield local views whose size the network does not take."""
    settings = step.settings
    if isinstance(settings, SelfDistillationStage) and settings.local_views:
        shape = settings.local_shape(step.image.shape)
        problem = registry.problem(step.architecture, step.backbone, shape=shape)
        if problem is not None:
            fault, allowed, _ = problem.split("; ")
            message = f"is {settings.local_size:g}: {fault} for local views; {allowed}; change local_size or image.size"
            yield Problem(path=f"stages.{step.stage}.local_size", message=message)


def _patch_problems(step: StageConfig) -> Iterator[Problem]:
    """Yield patches of stages whose target covers the whole image."""
    settings = step.settings
    if step.image.fit == "patch" and settings.target not in ("mask", "image"):
        value = f"fit is patch under {settings.task} with target {settings.target}"
        remedy = "set image.fit of this stage to stretch or letterbox"
        message = f"{value}; allowed: with masks or without annotation; {remedy}"
        yield Problem(path=f"stages.{step.stage}.image", message=message)


def _augment_problems(step: StageConfig) -> Iterator[Problem]:
    """Yield augmentation that the images or the target of a stage do not allow."""
    settings, path = step.settings, f"stages.{step.stage}.augment"
    height, width = step.image.shape
    if settings.augment.quarter_turns and height != width:
        message = (
            f"is {settings.augment.quarter_turns:g} for inputs of {registry.size_text(step.image.shape)} pixels; "
            "allowed: square inputs; remove it, or set image.size to one number"
        )
        yield Problem(path=f"{path}.quarter_turns", message=message)
    for name in ("cutmix", "copy_paste"):
        if getattr(settings.augment, name) and not isinstance(settings, MaskStage):
            message = (
                f"is {getattr(settings.augment, name):g} under {settings.task}; allowed: stages with masks "
                f"({', '.join(MASK_TASKS)}); remove it"
            )
            yield Problem(path=f"{path}.{name}", message=message)


def unused_patch_problems(spec: StudySpec, arms: Iterable[Arm]) -> Iterator[Problem]:
    """Yield settings of patches that no arm uses."""
    steps = [step for arm in arms for step in arm.chain]
    stages, used = {step.stage for step in steps}, {step.stage for step in steps if step.image.fit == "patch"}
    allowed = "without fit: patch; allowed: with it; remove it, or set image.fit"
    if spec.image.scale != 1.0 and stages and not used:
        yield Problem(path="image.scale", message=f"is {spec.image.scale:g} {allowed}")
    if spec.image.spacing is not None and stages and not used:
        yield Problem(path="image.spacing", message=f"is {spec.image.spacing:g} {allowed}")
    for name in sorted(stages - used):
        stage = spec.stages[name]
        if stage.patch != type(stage.patch)():
            yield Problem(path=f"stages.{name}.patch", message=f"is set {allowed}")
        if stage.image.scale not in (None, 1.0):
            yield Problem(path=f"stages.{name}.image.scale", message=f"is {stage.image.scale:g} {allowed}")
        if stage.image.spacing is not None:
            yield Problem(path=f"stages.{name}.image.spacing", message=f"is {stage.image.spacing:g} {allowed}")


_OWNERS = {"architecture is ": ("architecture", "compare"), "backbone is ": ("backbone", "compare"),
           "image size is ": ("image.size", ""), "upsampling is ": ("upsampling", ""),
           "deep_supervision is ": ("deep_supervision", ""), "method is ": ("method", ""),
           "mask_size is ": ("mask_size", "")}  # fmt: skip
"""Start of a message of the model catalog -> key of a stage, and section that sets it for all stages."""


def _network_problems(step: StageConfig) -> Iterator[Problem]:
    message = _network_problem(step)
    shared_name = step.settings.backbone is None and not is_known(step.backbone)
    if message is None or shared_name:  # reported by `name_problems`
        return
    about = next((owner for start, owner in _OWNERS.items() if message.startswith(start)), None)
    path = f"stages.{step.stage}"
    if about is not None:
        key, shared = about
        override = step.settings.image.size if key == "image.size" else getattr(step.settings, key)
        path = f"{path}.{key}" if override is not None else f"{shared}.{key}".lstrip(".")
    yield Problem(path=path, message=message)


def min_batch_size(step: StageConfig) -> int:
    """Return the minimum batch size: 2 if batch norm follows global pooling, or if views are compared, else 1."""
    pools = step.architecture is not None and ARCHITECTURES[step.architecture].pools
    return 2 if (pools and "decoder" in step.settings.trains) or views_of(step.settings) else 1


def _batch_problems(step: StageConfig) -> Iterator[Problem]:
    settings = step.settings
    at_once = settings.batch_size // settings.accumulate
    if at_once > 1 or learns_from_one_image(step):
        return
    parts = f" in {settings.accumulate} parts" if settings.accumulate > 1 else ""
    message = f"is {settings.batch_size}{parts} under {_normalises(step)}; allowed: 2 or more at a time; raise it"
    yield Problem(path=f"stages.{step.stage}.batch_size", message=message)


def single_image_problems(plan: Plan) -> Iterator[Problem]:
    """Yield stages that have one training image and a network that needs batches of two."""
    for node in (*plan.nodes.values(), *plan.candidates.values(), *plan.graph.after_search.values()):
        step = node.step
        if examples_per_epoch(plan, node) == 1 and not learns_from_one_image(step):
            message = f"trains on 1 image under {_normalises(step)}; allowed: 2 training images or more"
            remedy = "add images, label more of them, or let fewer validate"
            yield Problem(path=f"stages.{step.stage}", message=f"{message}; {remedy}")


def unlabelled_start_problems(plan: Plan) -> Iterator[Problem]:
    """Yield stages that end before their images without masks are used, with the fewest updates of each."""
    fewest: dict[str, tuple[AdversarialStage, int]] = {}
    for node in (*plan.nodes.values(), *plan.candidates.values(), *plan.graph.after_search.values()):
        settings = node.step.settings
        if isinstance(settings, AdversarialStage) and settings.epochs is not None:
            updates = settings.epochs * updates_per_epoch(examples_per_epoch(plan, node), settings.batch_size)
            if updates < fewest.get(node.step.stage, (settings, updates + 1))[1]:
                fewest[node.step.stage] = settings, updates
    for stage, (settings, updates) in fewest.items():
        message = unlabelled_start_problem(settings, updates)
        if message is not None:
            yield Problem(path=f"stages.{stage}.adversarial.unlabelled_start", message=message)


def _normalises(step: StageConfig) -> str:
    network = " with ".join(filter(None, (step.architecture, step.backbone)))
    return f"{network} at {registry.size_text(step.image.shape)} px, which normalises a value over the images at hand"


def learns_from_one_image(step: StageConfig) -> bool:
    """Return whether the network of a stage can be trained with a batch size of 1."""
    return min_batch_size(step) == 1 and _takes_one_image(step)


def _takes_one_image(step: StageConfig) -> bool:
    from models.weights.fit import takes_one_image  # imports torch, as does the next line
    from study.planning.blueprint import stage_blueprint

    frozen = step.link.freeze if step.link.unfreeze_after is None else ()
    return takes_one_image(stage_blueprint(step), frozen)


def _freeze_problems(path: str, step: StageConfig) -> Iterator[Problem]:
    stages = registry.encoder_stages(step.architecture, step.backbone)
    allowed = [*step.settings.trains, *(f"encoder.stage{number + 1}" for number in range(stages))]
    for name in step.link.freeze:
        if name not in allowed:
            yield Problem(path=f"{path}.freeze", message=unknown("part", name, allowed))


def _equal_networks_problems(path: str, step: StageConfig) -> Iterator[Problem]:
    """Yield links that carry all weights to a stage of two networks, which would be equal and stay so."""
    block = consistency_of(step.settings)
    if block is not None and block.method == "cross_pseudo" and "head" in step.link.parts:
        message = (
            f"is {step.link.carry} under cross_pseudo, so that its two networks are equal; allowed: encoder, "
            "encoder+decoder; change it, or choose another method"
        )
        yield Problem(path=f"{path}.carry", message=message)


def _link_problems(path: str, before: StageConfig, step: StageConfig) -> Iterator[Problem]:
    missing = [part for part in step.link.parts if part not in (*before.settings.trains, "head")]
    if missing:
        message = (
            f"carries {step.link.carry}, but {before.stage} ({before.settings.task}) never trained a {missing[0]}; "
            "allowed: carry: encoder; or put a stage before it that trains one"
        )
        yield Problem(path=path, message=message)
    reason = "so that weights fit" if step.link.parts else "as both start from the initial weights of the arm"
    for name, value, parent_value in _shared_properties(step, before, step.link.parts):
        if value != parent_value:
            message = (
                f"{step.stage} has {name} {value} and {before.stage} before it {parent_value}; "
                f"allowed: the same, {reason}; change one of them, or exclude the combination"
            )
            yield Problem(path=path, message=message)


def _shared_properties(
    step: StageConfig, before: StageConfig, parts: tuple[NetworkPart, ...]
) -> Iterator[tuple[str, object, object]]:
    """Yield name, value and parent value of the properties that must agree for the carried weights to fit."""
    yield "backbone", step.backbone, before.backbone  # also without parts, as the initial weights are those of it
    yield "image.channels", step.image.channels, before.image.channels
    depth, parent_depth = (registry.encoder_depth(part.architecture, part.backbone) for part in (step, before))
    if ("encoder" in parts or not parts) and parent_depth < depth:
        yield "encoder depth", depth, parent_depth
    if step.backbone == OWN or ("decoder" in parts and before.architecture is not None):
        yield "architecture", step.architecture, before.architecture
    if "head" in parts:
        yield "data", step.settings.data, before.settings.data
        yield "target", step.settings.target, before.settings.target
    if "decoder" in parts and step.architecture == before.architecture:
        values = [registry.upsampling(stage.architecture, upsampling_of(stage.settings)) for stage in (step, before)]
        yield "upsampling", values[0], values[1]
