"""Which parameters a tensor depends on, read off its autograd graph."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn


class Removed(nn.Module):
    """Stands where a module was that reached no feature map."""

    def forward(self, features: Tensor, *_: object) -> Tensor:
        """Return the input."""
        return features


def reached(*outputs: Tensor) -> frozenset[int]:
    """Return the ids of the parameters the outputs depend on."""
    seen = {output.grad_fn for output in outputs} - {None}
    waiting = list(seen)
    found = set()
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        following = {function for function, _ in node.next_functions} - seen
        seen |= following
        waiting.extend(following)
    return frozenset(found)


def openings(features: Sequence[Tensor]) -> Mapping[int, frozenset[int]]:
    """Return which feature maps, counted from 0, need parameters that no shallower one does, and their ids."""
    found: dict[int, frozenset[int]] = {}
    known: frozenset[int] = frozenset()
    for number, feature in enumerate(features):
        new = reached(feature) - known
        known |= new
        if new:
            found[number] = new
    return found


def stages(encoder: nn.Module, features: Sequence[Tensor]) -> tuple[tuple[str, ...], ...]:
    """Return parameter names by stage: stage k is the k-th group that makes new feature maps.

    Feature maps without parameters of their own (the image, a last pooling) open no stage, so VGG and
    ResNet have five, hierarchical transformers four.
    """
    names = {id(parameter): name for name, parameter in encoder.named_parameters()}
    return tuple(tuple(name for key, name in names.items() if key in new) for new in openings(features).values())


def prune(module: nn.Module, useful: frozenset[int]) -> None:
    """Remove the submodules that train but are not useful, so that nothing untrained is ever saved."""
    for name, child in module.named_children():
        trained = [parameter for parameter in child.parameters() if parameter.requires_grad]
        if trained and not any(id(parameter) in useful for parameter in trained):
            setattr(module, name, Removed())
        else:
            prune(child, useful)
