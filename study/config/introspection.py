"""Look up the allowed keys, tags and types at a location of the study file in its schema."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel

from study.config.compare import COMPARE_KEYS, Compare
from study.config.schema import StudySpec

Location = tuple[str | int, ...]


def tags_at(path: Location) -> list[str]:
    """Return the allowed values of a discriminator key; empty if the key is none."""
    models = [member for kind in types_at(path[:-1]) for member in members_of(kind) if is_model(member)]
    kinds = [model.model_fields[str(path[-1])].annotation for model in models if path[-1] in model.model_fields]
    return [str(tag) for kind in kinds if get_origin(kind) is Literal for tag in get_args(kind)]


def keys_at(location: Location) -> list[str]:
    """Return the allowed keys of the mapping at a location."""
    models = [member for kind in types_at(location) for member in members_of(kind) if is_model(member)]
    if Compare in models:
        return sorted(COMPARE_KEYS)
    return sorted({field.alias or name for model in models for name, field in model.model_fields.items()})


def nested_key(location: Location, name: str | int) -> str | None:
    """Return the path of the only key of this name one level below a location, such as optimizer.lr.

    Keys of optional sections, such as average.lr, are considered only if no other section has the key.
    """
    models = [member for kind in types_at(location) for member in members_of(kind) if is_model(member)]
    is_optional: dict[str, bool] = {}
    for model in models:
        for outer, field in model.model_fields.items():
            members = list(members_of(field.annotation))
            if any(is_model(member) and name in member.model_fields for member in members):
                is_optional[f"{outer}.{name}"] = types.NoneType in members
    paths = [path for path, optional in is_optional.items() if not optional] or list(is_optional)
    return paths[0] if len(paths) == 1 else None


def model_of_tag(location: Location, tag: str | int) -> str | None:
    """Return the name of the model that a tag selects in the union at a location, None if there is no such union."""
    for kind in types_at(location):
        members = [member for member in members_of(kind) if is_model(member)]
        for member in members if len(members) > 1 else ():
            if _tag_of(member, tag):
                return member.__name__
    return None


def names_of_weights_at(location: Location) -> list[str]:
    """Return the allowed keys of a mapping of weights at a location, such as the names of losses."""
    keys = [get_args(member)[0] for kind in types_at(location) for member in members_of(kind) if _is_mapping(member)]
    return [str(name) for key in keys if get_origin(key) is Literal for name in get_args(key)]


def types_at(location: Location) -> list[Any]:
    """Return the type expressions of a location: several where the path crosses a union."""
    kinds: list[Any] = [StudySpec]
    for step in location:
        kinds = [inner for kind in kinds for inner in _step(kind, step)]
    return kinds


def _step(kind: Any, step: str | int) -> Iterator[Any]:  # noqa: ANN401 - a type expression
    members = list(members_of(kind))
    for member in members:
        if is_model(member):
            if step in member.model_fields:
                yield member.model_fields[step].annotation
            elif len(members) > 1 and (member.__name__ == step or _tag_of(member, step)):
                yield member
        elif get_origin(member) in (tuple, list):
            yield get_args(member)[0]
        elif _is_mapping(member):
            yield get_args(member)[1]


def members_of(kind: Any) -> Iterator[Any]:  # noqa: ANN401 - a type expression
    """Yield the members of a union, or the type itself."""
    origin = get_origin(kind)
    if origin is Annotated:
        yield from members_of(get_args(kind)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(kind):
            yield from members_of(member)
    else:
        yield kind


def is_model(kind: object) -> TypeGuard[type[BaseModel]]:
    """Return whether a type is a pydantic model."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_mapping(kind: Any) -> bool:  # noqa: ANN401 - a type expression
    return get_origin(kind) is not None and len(get_args(kind)) == 2


def _tag_of(model: type[BaseModel], tag: str | int) -> bool:
    return any(
        get_origin(field.annotation) is Literal and tag in get_args(field.annotation)
        for field in model.model_fields.values()
    )
