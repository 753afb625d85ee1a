"""Parameter groups with learning rates that depend on the depth of a layer in the encoder."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch import nn

from models.network import Network
from models.settings import NetworkOptimizerSettings

FACTOR = "lr_factor"
"""Key of a group: its learning rate as a multiple of that of decoder and head."""
_BLOCK = re.compile(r"\bblocks\.(\d+)\.")
_EMBEDDING = re.compile(r"\b(patch_embed|pos_embed|cls_token|reg_token|norm_pre)\b")


def parameter_groups(network: Network, settings: NetworkOptimizerSettings) -> list[dict[str, Any]]:
    """Return the groups of all parameters, that of decoder and head first.

    The factor of encoder layer k of n, counted from 1 at the input, is
    `encoder_lr_factor` x `layer_decay` ** (n + 1 - k) (Bao et al. 2022, BEiT), without decay `encoder_lr_factor`.
    """
    layers = encoder_layers(network)
    factor_by_name = {
        name: settings.encoder_lr_factor * settings.layer_decay ** (len(layers) - number)
        for number, names in enumerate(layers)
        for name in names
    }
    groups: dict[float, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        groups[factor_by_name.get(name, 1.0)].append(parameter)
    return [
        {"params": parameters, "lr": settings.lr * factor, FACTOR: factor}
        for factor, parameters in sorted(groups.items(), reverse=True, key=lambda item: (item[0] == 1.0, item[0]))
    ]


def encoder_layers(network: Network) -> Sequence[frozenset[str]]:
    """Return the names of the encoder's parameters by layer, from the input on.

    Plain vision transformers have a layer for their embeddings and one for each block; all other encoders have their
    stages as layers. Parameters of no layer, such as a last normalisation, belong to the last one.
    """
    names = [name for name, _ in network.named_parameters() if name.startswith("encoder.")]
    stages = network.encoder_stages
    layers = _blocks(names) if network.is_plain_transformer else list(stages)
    assigned = frozenset[str]().union(*layers)
    rest = frozenset(names) - assigned
    return [*layers[:-1], layers[-1] | rest] if layers else [rest]


def _blocks(names: Sequence[str]) -> list[frozenset[str]]:
    layers: dict[int, set[str]] = defaultdict(set)
    for name in names:
        block = _BLOCK.search(name)
        if block is not None:
            layers[int(block[1]) + 1].add(name)
        elif _EMBEDDING.search(name):
            layers[0].add(name)
    return [frozenset(layers[number]) for number in sorted(layers)]
