"""Match the tensors of a checkpoint with those of an encoder, completely or not at all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property

import torch
from torch import Tensor, nn

from models.encoders.vision import timm
from models.weights.checkpoint.naming import Converted, namings
from models.weights.checkpoint.read import Checkpoint
from models.weights.checkpoint.rules import COUNTER, RENAMINGS, prefixes, reason_to_leave_out

IMAGE_CHANNELS = 3
MAX_NAMES = 3
"""Maximum number of tensor names in a message."""
MAX_NAME_LENGTH = 100
"""Maximum number of characters of a name in a message."""
ENCODER_PREFIX = "encoder."
BESIDE_ENCODER = f"parts beside `{ENCODER_PREFIX}`"
UNUSED = "layers that this encoder does not use"
ABSORBED = "changed or dropped by timm's conversion"
COUNTERS = "counters of batch norm"
ALLOWED = "allowed by the study"
NOT_DENSE = "sparse, nested, quantized or without values"


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Shape of a tensor, and whether it is floating point."""

    shape: tuple[int, ...]
    floating: bool

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorSpec":
        """Return the specification of a tensor."""
        return cls(shape=tuple(tensor.shape), floating=tensor.is_floating_point())


def specs_of(encoder: nn.Module) -> dict[str, TensorSpec]:
    """Return the specifications of the tensors of an encoder by name."""
    return {name: TensorSpec.of(tensor) for name, tensor in encoder.state_dict().items()}


@dataclass(frozen=True, kw_only=True)
class Match:
    """How the tensors of a checkpoint fill an encoder.

    Attributes:
        rules: What was done with the names, in words.
        tensors: Tensors by their names in the encoder, in its shapes.
        sources: Names in the checkpoint of `tensors`.
        kept: Names of tensors of the encoder that keep their initial values, by the reason.
        left_out: Names of tensors of the checkpoint that are not used, by the reason.
        faults: Descriptions of tensors that do not fit, by the kind of fault.
    """

    rules: tuple[str, ...] = ()
    tensors: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    kept: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)

    @property
    def problem(self) -> str | None:
        """Return the faults in one line, None if there are none."""
        listed = (f"{len(names)} {fault} ({_shortened(names)})" for fault, names in self.faults.items())
        return f"tensors {', '.join(listed)}" if self.faults else None

    @cached_property
    def non_finite(self) -> str | None:
        """Return the name in the checkpoint of a tensor with a value that is NaN or infinite in float32."""
        floating = (name for name, tensor in self.tensors.items() if tensor.is_floating_point())
        return next((self.sources[name] for name in floating if not self.tensors[name].float().isfinite().all()), None)

    @property
    def text(self) -> str:
        """Return the rules and the numbers of tensors."""
        parts = [*self.rules, f"{len(self.tensors)} tensors matched"]
        for verb, reasons in (("left out", self.left_out), ("initial values", self.kept)):
            if reasons:
                parts.append(f"{verb}: " + ", ".join(f"{reason} ({len(names)})" for reason, names in reasons.items()))
        return "; ".join(parts)


def match(
    checkpoint: Checkpoint, encoder: Mapping[str, TensorSpec], *, backbone: str, channels: int,
    allow: Sequence[str] = (),
) -> Match:  # fmt: skip
    """Match a checkpoint with an encoder by the rules that match most of its tensors.

    Args:
        checkpoint: The tensors of a file.
        encoder: The tensors of the encoder.
        backbone: Name of the backbone.
        channels: Image channels of the encoder. A first convolution for three channels is adapted: summed over its
            channels for one, repeated and scaled for several.
        allow: Patterns of names: tensors of the encoder that may keep their initial values, and tensors of the
            checkpoint that may be left over.
    """
    dense = {name: tensor for name, tensor in checkpoint.tensors.items() if _is_dense(tensor)}
    best, most = _Candidate(), -1
    for candidate in _candidates(dense, encoder, backbone):
        fitting = sum(_fits(tensor, encoder[name], channels) for name, tensor in candidate.converted.tensors.items())
        if fitting > most:
            best, most = candidate, fitting
        if most == len(encoder):
            break
    result = _judge(replace(checkpoint, tensors=dense), encoder, best, channels, tuple(allow))
    for name in (name for name in checkpoint.tensors if name not in dense):
        reason = reason_to_leave_out(name) or (ALLOWED if _is_allowed(name, tuple(allow)) else None)
        target = result.faults.setdefault(NOT_DENSE, []) if reason is None else result.left_out.setdefault(reason, [])
        target.append(name)
    return result


def _is_dense(tensor: Tensor) -> bool:
    """Return whether a tensor has its values in memory, one for each position."""
    return tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_meta or tensor.is_quantized)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A way to name the tensors of a checkpoint."""

    prefix: str = ""
    rules: tuple[str, ...] = ()
    converted: Converted = field(default_factory=Converted)
    originals: Mapping[str, str] = field(default_factory=dict)
    """Names in the checkpoint by their names in `converted`."""


def _candidates(
    tensors: Mapping[str, Tensor], encoder: Mapping[str, TensorSpec], backbone: str
) -> Iterator[_Candidate]:
    renamings: dict[str, Callable[[str], str]] = {"": str, **RENAMINGS}
    for prefix in dict.fromkeys(prefixes(tensors)):
        names = [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)]
        for renaming, rename in renamings.items():
            originals = {rename(name): prefix + name for name in names}
            if len(originals) < len(names) or (renaming and originals.keys() == set(names)):
                continue
            named = {name: tensors[original] for name, original in originals.items()}
            for naming, convert in namings(backbone).items():
                rules = (f"prefix `{prefix}` removed" if prefix else "", renaming, naming)
                yield _Candidate(
                    prefix=prefix, rules=tuple(filter(None, rules)), converted=convert(named, encoder),
                    originals=originals,
                )  # fmt: skip


def _fits(tensor: Tensor, spec: TensorSpec, channels: int) -> bool:
    return tuple(tensor.shape) == spec.shape or _is_adaptable(tensor, spec, channels)


def _is_adaptable(tensor: Tensor, spec: TensorSpec, channels: int) -> bool:
    """Return whether a tensor is the weight of a first convolution for three channels, and the encoder has others."""
    rows, *sides = spec.shape[:1], *spec.shape[2:]
    return (
        tensor.ndim == 4
        and spec.shape == (*rows, channels, *sides)
        and tuple(tensor.shape) == (*rows, IMAGE_CHANNELS, *sides)
    )


def _judge(
    checkpoint: Checkpoint, encoder: Mapping[str, TensorSpec], candidate: _Candidate, channels: int,
    allow: tuple[str, ...],
) -> Match:  # fmt: skip
    wrapper = f" with the tensors in `{'.'.join(checkpoint.wrapper)}`" if checkpoint.wrapper else ""
    rules = [f"{checkpoint.kind} file{wrapper}", *candidate.rules]
    converted, originals = candidate.converted, candidate.originals
    result = Match()
    for name, spec in encoder.items():
        tensor = converted.tensors.get(name)
        original = originals.get(converted.sources.get(name, ""), "")
        fault = _fault(name, original, tensor, spec, channels)
        if fault is None and tensor is not None:
            stored = checkpoint.tensors.get(original, tensor).shape
            if stored != tensor.shape:
                rules.append(f"`{original}` converted by timm from {tuple(stored)} to {tuple(tensor.shape)}")
            adapted = tuple(tensor.shape) != spec.shape
            rules += [f"`{original}` adapted from {IMAGE_CHANNELS} to {channels} channels"] if adapted else []
            result.tensors[name] = timm.models.adapt_input_conv(channels, tensor) if adapted else tensor
            result.sources[name] = original
        elif tensor is None and name.endswith(COUNTER):
            result.kept.setdefault(COUNTERS, []).append(name)
        elif _is_allowed(name, allow):
            result.kept.setdefault(ALLOWED, []).append(name)
        elif fault is not None:
            result.faults.setdefault(fault[0], []).append(fault[1])
    for name, reason in _left_over(checkpoint.tensors, candidate):
        if reason is not None:
            result.left_out.setdefault(reason, []).append(name)
        elif _is_allowed(name, allow):
            result.left_out.setdefault(ALLOWED, []).append(name)
        else:
            result.faults.setdefault("unknown", []).append(f"{name} {tuple(checkpoint.tensors[name].shape)}")
    return Match(
        rules=tuple(rules), tensors=result.tensors, sources=result.sources, kept=result.kept,
        left_out=result.left_out, faults=result.faults,
    )  # fmt: skip


def _fault(name: str, original: str, tensor: Tensor | None, spec: TensorSpec, channels: int) -> tuple[str, str] | None:
    """Return kind and description of the fault of a tensor of the encoder, None if it fits."""
    if tensor is None:
        return "missing", f"{name} {spec.shape}"
    if not _fits(tensor, spec, channels):
        return "of another shape", f"{original} {tuple(tensor.shape)} instead of {spec.shape}"
    if tensor.is_floating_point() != spec.floating:
        return "of another data type", f"{original} {str(tensor.dtype).removeprefix('torch.')}"
    return None


def _left_over(tensors: Mapping[str, Tensor], candidate: _Candidate) -> Iterator[tuple[str, str | None]]:
    """Yield the tensors of a checkpoint that the encoder has no place for, and the rule by which each is left out."""
    converted, prefix = candidate.converted, candidate.prefix
    beside = BESIDE_ENCODER if prefix.endswith(ENCODER_PREFIX) and not prefix.endswith(f"_{ENCODER_PREFIX}") else None
    for name in tensors:
        if not name.startswith(prefix):
            yield name, reason_to_leave_out(name) or beside
    for names, reason in ((converted.unused, UNUSED), (converted.absorbed, ABSORBED)):
        yield from ((candidate.originals[name], reason) for name in names)
    for name in converted.unknown:
        original = candidate.originals.get(name, prefix + name)
        yield original, reason_to_leave_out(original.removeprefix(prefix))


def _is_allowed(name: str, allow: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in allow)


def _shortened(names: Sequence[str]) -> str:
    shown = [name if len(name) <= MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}..." for name in names[:MAX_NAMES]]
    return ", ".join(shown) + (", ..." if len(names) > MAX_NAMES else "")
