"""Parameters that a tensor depends on, determined from its autograd graph, and modules that are called."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn


class Removed(nn.Module):
    """Placeholder of a removed module that did not affect any feature map."""

    def forward(self, features: Tensor, *_: object) -> Tensor:
        """Return the input."""
        return features


def reached_parameters(*outputs: Tensor) -> frozenset[int]:
    """Return the ids of the parameters that the outputs depend on."""
    seen = {output.grad_fn for output in outputs} - {None}
    pending = list(seen)
    parameter_ids = set()
    while pending:
        node = pending.pop()
        if node is None:
            continue
        if hasattr(node, "variable"):
            parameter_ids.add(id(node.variable))
        following = {function for function, _ in node.next_functions} - seen
        seen |= following
        pending.extend(following)
    return frozenset(parameter_ids)


def new_parameters(features: Sequence[Tensor]) -> Mapping[int, frozenset[int]]:
    """Return, by number of the feature map, the ids of the parameters that no shallower map depends on."""
    new_by_map: dict[int, frozenset[int]] = {}
    known: frozenset[int] = frozenset()
    for number, feature in enumerate(features):
        new = reached_parameters(feature) - known
        known |= new
        if new:
            new_by_map[number] = new
    return new_by_map


def stages(encoder: nn.Module, features: Sequence[Tensor]) -> tuple[tuple[str, ...], ...]:
    """Return parameter names by stage: stage k is the k-th group with a new feature map.

    Feature maps without new parameters (the image, a last pooling) do not start a stage, so VGG and ResNet have five
    stages, hierarchical transformers four.
    """
    names = {id(parameter): name for name, parameter in encoder.named_parameters()}
    return tuple(tuple(name for key, name in names.items() if key in new) for new in new_parameters(features).values())


def called_modules(module: nn.Module, run: Callable[[], object]) -> list[str]:
    """Return the names of the submodules whose forward pass is called by a function, in the order of their names."""
    called = set[str]()
    handles = [
        child.register_forward_pre_hook(lambda _, __, name=name: called.add(name))
        for name, child in module.named_modules()
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return [name for name, _ in module.named_modules() if name in called]


def prune(module: nn.Module, useful: frozenset[int]) -> None:
    """Remove submodules with parameters none of which is useful, so that untrained weights are never saved."""
    for name, child in module.named_children():
        trained = [parameter for parameter in child.parameters() if parameter.requires_grad]
        if trained and not any(id(parameter) in useful for parameter in trained):
            setattr(module, name, Removed())
        else:
            prune(child, useful)
