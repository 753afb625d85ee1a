"""Training recipes: named sets of stage settings, which explicit settings override."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel

RecipeName = Literal["plain", "strong"]
RECIPES: Final[Mapping[RecipeName, Mapping[str, Any]]] = {
    "plain": {},
    "strong": {
        "optimizer": {"name": "adamw", "weight_decay": 0.01},
        "schedule": {"name": "cosine", "warmup": 0.05},
        "clip_norm": 1.0,
        "average": {"name": "ema", "decay": 0.99},
        "augment": {"preset": "strong", "flip": 0.5},
        "tta": ["flip"],
    },
}
"""Values of each recipe; all other settings keep their defaults, which are the values of `plain`.

`tta` is for stages that learn masks only.
"""


def with_recipe(document: Mapping[str, Any], recipe: RecipeName, keys: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings of a stage with the values of a recipe that it does not set.

    Args:
        document: The settings of the stage.
        recipe: Name of the recipe.
        keys: The keys that the stage has.
    """
    values = {key: value for key, value in RECIPES[recipe].items() if key in keys}
    return _merged(values, document)


def forget(settings: BaseModel, document: Mapping[str, Any]) -> None:
    """Mark all settings as not set that are not in a document, so that another recipe can replace them."""
    keys = {name: field.alias or name for name, field in type(settings).model_fields.items()}
    own = {name: document[key] for name, key in keys.items() if key in document}
    settings.model_fields_set.intersection_update(own)
    for name, value in own.items():
        inner = getattr(settings, name)
        if isinstance(inner, BaseModel) and isinstance(value, Mapping):
            forget(inner, value)


def recipe_values(settings: BaseModel) -> dict[str, Any]:
    """Return the values of a stage for all keys that recipes set, by dotted key."""
    return _flat(settings.model_dump(mode="json"), RECIPES["strong"])


def _merged(values: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with values that it lacks. A mapping with another `name` is another method: it stays alone."""
    merged = {**values, **document}
    for key, value in values.items():
        own = document.get(key)
        if isinstance(own, Mapping) and isinstance(value, Mapping):
            same = own.get("name", value.get("name")) == value.get("name")
            merged[key] = _merged(value, own) if same else own
    return merged


def _flat(values: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in keys.items():
        if key not in values:
            continue
        if isinstance(inner, Mapping) and isinstance(values[key], Mapping):
            flat |= {f"{key}.{name}": value for name, value in _flat(values[key], inner).items()}
        else:
            flat[key] = values[key]
    return flat
