"""The naming rules of published checkpoints: where the tensors are, their prefixes, and what is not of the encoder."""

import re
from collections.abc import Callable, Iterator, Mapping

WRAPPERS = (
    "state_dict_ema", "model_ema", "teacher", "state_dict", "model_state_dict", "model", "student", "network_weights",
    "net", "network", "encoder", "backbone", "module",
)  # fmt: skip
"""Keys of a checkpoint under which the tensors may be, preferred ones first: the averaged weights, DINO's teacher."""

PREFIXES = (
    "module.", "_orig_mod.", "model.", "net.", "network.",  # of DataParallel, torch.compile, Lightning
    "encoder_q.",  # MoCo v1 and v2
    "base_encoder.", "momentum_encoder.",  # MoCo v3
    "teacher_backbone.", "teacher.", "student_backbone.", "student.", "online_encoder.", "target_encoder.",
    "backbone.",  # DINO, RadImageNet, lightly
    "feature_extractor.", "image_encoder.", "visual.",
    "encoder.",  # stages of this platform, segmentation_models_pytorch, SimMIM
    "0.", "features.",
)  # fmt: skip
"""Prefixes of the names of an encoder's tensors, preferred ones first; they are removed, also several in turn."""

_CONTAINERS = re.compile(r"^(?:(?:module|_orig_mod|model|net|network)\.)+")

LEFT_OUT: Mapping[str, re.Pattern[str]] = {
    "the other network of self-supervised training": re.compile(
        r"(encoder_q|encoder_k|base_encoder|momentum_encoder|backbone_momentum|(teacher|student|online|target|ema)_?"
        r"(backbone|encoder|network)?)\..*"
    ),
    "the queue": re.compile(r"(.*_)?queue(_.*)?"),
    "heads": re.compile(
        r"(fc|_fc|heads?|auxiliary_heads|head_dist|pre_logits|classifier|classif|last_linear|segmentation_head|classification_head|"
        r"((teacher|student|online|target)_)?(head|proj(ection|ector)?|pred(iction|ictor)?|dino|ibot|cls|mlp)(_head|_mlp)?"
        r"(_momentum)?|projector|predictor)(\..*)?"
    ),
    "the decoder of masked reconstruction": re.compile(r"decoder_(embed|blocks|pos_embed|norm|pred)(\..*)?|mask_token"),
    "the decoder": re.compile(r"decoder\..*"),
    "the loss": re.compile(r"(criterion|loss|loss_fn|dino_loss)(\..*)?|center|logit_scale"),
    "statistics of the input": re.compile(r"mean|std|pixel_mean|pixel_std"),
}
"""What a checkpoint may contain beside the encoder: a name and a pattern of the tensors without their prefix."""

COUNTER = "num_batches_tracked"
"""The counters of batch norm, which files of early versions of torch lack; they start at 0."""


_RESNET_LAYERS = {"0": "conv1.", "1": "bn1.", "4": "layer1.", "5": "layer2.", "6": "layer3.", "7": "layer4."}


def _name_resnet_layers(name: str) -> str:
    return re.sub(r"^(\d)\.", lambda start: _RESNET_LAYERS.get(start[1], start[0]), name)


def _prefix_densenet_layers(name: str) -> str:
    return f"features.{name}" if re.match(r"(conv0|norm[05]|denseblock\d|transition\d)\.", name) else name


def _join_densenet_names(name: str) -> str:
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


def _join_transformer_chunks(name: str) -> str:
    return re.sub(r"^blocks\.\d+\.(?=\d+\.)", "blocks.", name)


RENAMINGS: Mapping[str, Callable[[str], str]] = {
    "layers of ResNet by number (RadImageNet)": _name_resnet_layers,
    "layers of DenseNet without `features.`": _prefix_densenet_layers,
    "layers of DenseNet as `norm.1` (early torchvision)": _join_densenet_names,
    "blocks of transformers in chunks (DINOv2)": _join_transformer_chunks,
}
"""Names of other publications in the words of torchvision and timm, by a description."""


def prefixes(names: Mapping[str, object], depth: int = 4) -> Iterator[str]:
    """Yield the prefixes of names: none, those of the table, and up to `depth` of them in turn."""
    level = [""]
    for _ in range(depth + 1):
        yield from level
        level = [
            start + prefix
            for start in level
            for prefix in PREFIXES
            if any(name.startswith(start + prefix) for name in names)
        ]


def reason_to_leave_out(name: str) -> str | None:
    """Return what a tensor belongs to if it is not part of an encoder, None if it may be."""
    plain = _CONTAINERS.sub("", name)
    return next((reason for reason, pattern in LEFT_OUT.items() if pattern.fullmatch(plain)), None)
