"""Training recipes: named sets of stage settings, which explicit settings override."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel

from study.config.evaluation import TtaName

RecipeName = Literal["plain", "strong"]
RECIPES: Final[Mapping[RecipeName, Mapping[str, Any]]] = {
    "plain": {},
    "strong": {
        "optimizer": {"name": "adamw", "weight_decay": 0.01},
        "schedule": {"name": "cosine", "warmup": 0.05},
        "clip_norm": 1.0,
        "average": {"name": "ema", "decay": 0.99},
        "augment": {"preset": "strong", "flip": 0.5},
    },
}
"""Settings of a stage under each recipe; all others keep their defaults, which are the values of `plain`."""
RECIPE_TTA: Final[Mapping[RecipeName, tuple[TtaName, ...]]] = {"plain": (), "strong": ("flip",)}
"""Test-time augmentation under each recipe, where neither the stage nor `evaluate` sets it."""


def with_recipe(document: Mapping[str, Any], recipe: RecipeName, excluded: Iterable[str] = ()) -> dict[str, Any]:
    """Return the settings of a stage with the values of a recipe that it does not set, without some dotted keys."""
    values = RECIPES[recipe]
    for path in excluded:
        values = _without(values, path)
    return _merged(values, document)


def mark_as_unset(settings: BaseModel, document: Mapping[str, Any]) -> None:
    """Mark all settings as not set that are not in a document, so that another recipe can replace them."""
    keys = {name: field.alias or name for name, field in type(settings).model_fields.items()}
    set_fields = {name: document[key] for name, key in keys.items() if key in document}
    settings.model_fields_set.intersection_update(set_fields)
    for name, value in set_fields.items():
        inner = getattr(settings, name)
        if isinstance(inner, BaseModel) and isinstance(value, Mapping):
            mark_as_unset(inner, value)


def recipe_values(settings: BaseModel) -> dict[str, Any]:
    """Return the values of a stage for all keys that recipes set, by dotted key."""
    return _flat(settings.model_dump(mode="json"), RECIPES["strong"])


def _without(values: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    key, _, rest = path.partition(".")
    if rest and key in values:
        return {**values, key: _without(values[key], rest)}
    return {name: value for name, value in values.items() if name != key}


def _merged(values: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with values that it lacks. A mapping with another `name` is another method: it stays alone."""
    merged = {**values, **document}
    for key, value in values.items():
        explicit = document.get(key)
        if isinstance(explicit, Mapping) and isinstance(value, Mapping):
            same = explicit.get("name", value.get("name")) == value.get("name")
            merged[key] = _merged(value, explicit) if same else explicit
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
