"""Reading a study file: strict YAML, overrides by dotted path."""

import copy
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from study.problems import Problem, Refused

Document = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML 1.2 booleans and floats (`no` is a word, `1e-4` a number), and no key twice."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping, refusing a key that stands twice."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key == "<<" or key is None:
                continue
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands twice; allowed: each name once; rename or remove line {line}"
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.inf$|^\.nan$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """Parse one YAML value."""
    return yaml.load(text, Loader=_Loader)


def read_document(path: Path, overrides: Iterable[str] = ()) -> Document:
    """Read a study file and apply `path=value` overrides. Raises `Refused`."""
    file = str(path)
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"cannot be read ({reason}); allowed: a YAML text file; `study init TEMPLATE -o FILE` writes one"
        raise Refused([Problem(path="", message=message)], file) from error
    except yaml.YAMLError as error:
        raise Refused([Problem(path="", message=_yaml_message(error))], file) from error
    if not isinstance(document, dict):
        what = "is empty" if document is None else f"holds a {type(document).__name__}"
        message = f"{what}; allowed: a mapping with name, data, stages, pathways, compare; `study init` writes one"
        raise Refused([Problem(path="", message=message)], file)
    for override in overrides:
        dotted, found, value = override.partition("=")
        if not found or not dotted:
            message = f"--set {override!r} has no value; allowed: --set path.in.spec=value"
            raise Refused([Problem(path=dotted, message=message)], file)
        try:
            set_path(document, dotted, parse_yaml(value))
        except ValueError as error:
            raise Refused([Problem(path=dotted, message=f"--set: {error}")], file) from error
        except yaml.YAMLError as error:
            raise Refused([Problem(path=dotted, message=f"--set: {_yaml_message(error)}")], file) from error
    return document


def set_path(document: Document, dotted: str, value: object) -> None:
    """Set one value; mappings on the way are made. Raises `ValueError` where something else is in the way."""
    *parents, last = _keys(dotted)
    at: Any = document
    for step in parents:
        at = at.setdefault(step, {})
        if not isinstance(at, dict):
            raise ValueError(f"{step!r} holds {at!r}, which has no keys; allowed: a path to a key of a mapping")
    at[last] = value


def _keys(dotted: str) -> list[str]:
    """Split a path; what `compare` varies has a name with dots, such as segment.loss.dice."""
    head, _, factor = dotted.partition(".")
    one_name = head == "compare" and factor and not factor.startswith("baseline.")
    return [head, factor] if one_name else dotted.split(".")


def with_paths(document: Mapping[str, Any], changes: Mapping[str, object]) -> Document:
    """Return a deep copy with the dotted paths set."""
    changed = copy.deepcopy(dict(document))
    for dotted, value in changes.items():
        set_path(changed, dotted, copy.deepcopy(value))
    return changed


def _yaml_message(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).replace("\n", " ")
    where = f"line {mark.line + 1}: " if mark is not None else ""
    return f"{where}{problem}" + ("" if "allowed:" in problem else "; allowed: valid YAML; check indentation")
