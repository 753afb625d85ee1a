"""Reading a study file: strict YAML, overrides by dotted path."""

import copy
import math
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from study.errors import ConfigError, Problem

Document = dict[str, Any]


MAX_BYTES = 2**19
MAX_DEPTH = 50
MAX_VALUES = 100_000
MAX_DIGITS = 100
_OCTAL = re.compile(r"^[-+]?0[0-7]+$")
_TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep; allowed: at most {MAX_DEPTH} levels, aliases expanded"


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars, without the features that let a small file become something else or something huge.

    `no` and 2024-01-31 and 12:30:00 are text, `1e-4` is a number. Refused: duplicate keys, explicit tags, integers
    that YAML 1.1 reads as octal, values nested in themselves, deeply nested values, and aliases that expand to many.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("merge", "null")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 - a position or a key
        """Compose a value unless it has a tag or is nested too deeply."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        is_text = tag == "tag:yaml.org,2002:str" and isinstance(event, yaml.ScalarEvent)
        if tag not in (None, "!") and not is_text:
            raise _refused(f"the tag {tag} is not supported; allowed: plain values; remove the tag", event)
        if self._depth == MAX_DEPTH:
            raise _refused(_TOO_DEEP, event)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def get_single_node(self) -> yaml.Node | None:
        """Compose the document. Its values are counted before aliases and merge keys are expanded."""
        node = super().get_single_node()
        values, depth = _extent(node, {}) if node is not None else (0.0, 0)
        if values > MAX_VALUES:
            message = f"holds more than {MAX_VALUES:,} values; allowed: at most so many, aliases expanded; remove some"
            raise yaml.MarkedYAMLError(problem=message)
        if node is not None and depth > MAX_DEPTH:
            raise _refused(_TOO_DEEP, node)
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        """Return the text of a scalar. Half of a surrogate pair cannot be written to any file."""
        text: str = super().construct_scalar(node)
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise _refused("holds half of a surrogate pair; allowed: complete Unicode characters; replace it", node)
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping; a duplicate key is refused."""
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


def _refused(problem: str, at: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    mark: Any = at.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _extent(node: yaml.Node, known: dict[yaml.Node, tuple[float, int]]) -> tuple[float, int]:
    """Return how many values a node holds and how deep it is, aliases expanded; infinitely many if it holds itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1, 1
    if node not in known:
        known[node] = math.inf, 1
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        extents = [_extent(part, known) for part in parts]
        known[node] = 1 + sum(size for size, _ in extents), 1 + max((depth for _, depth in extents), default=0)
    return known[node]


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    if _OCTAL.match(text) and text.lstrip("+-0"):
        remedy = "allowed: decimal numbers, or text in quotes; remove the leading zero or add quotes"
        raise _refused(f"{text} is octal in YAML 1.1 and decimal in YAML 1.2; {remedy}", node)
    if len(text) > MAX_DIGITS:
        raise _refused(f"a number of {len(text):,} digits; allowed: at most {MAX_DIGITS} digits; shorten it", node)
    return int(text, 16 if "0x" in text else 10)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0[0-7_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$|^[-+]?\.inf$|^\.nan$"),
    list("-+.0123456789"),
)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def parse_yaml(text: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """Parse one YAML value. What stands at an alias is a copy: a change of one place changes no other."""
    return _copied(yaml.load(text, Loader=_Loader))


def _copied(value: Any) -> Any:  # noqa: ANN401 - whatever the file holds
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def read_document(path: Path, overrides: Iterable[str] = ()) -> Document:
    """Read a study file and apply `path=value` overrides. Raises `ConfigError`."""
    file = str(path)
    text = _text(path)
    try:
        document = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError([Problem(path="", message=_yaml_message(error))], file) from error
    if not isinstance(document, dict):
        what = "is empty" if document is None else f"holds a {type(document).__name__}"
        message = f"{what}; allowed: a mapping with name, data, stages, pathways, compare; `study init` writes one"
        raise ConfigError([Problem(path="", message=message)], file)
    for override in overrides:
        dotted, found, value = override.partition("=")
        if not found or not dotted:
            message = f"--set {override!r} has no value; allowed: --set path.in.spec=value"
            raise ConfigError([Problem(path=dotted, message=message)], file)
        try:
            set_path(document, dotted, parse_yaml(value))
        except ValueError as error:
            raise ConfigError([Problem(path=dotted, message=f"--set: {error}")], file) from error
        except yaml.YAMLError as error:
            raise ConfigError([Problem(path=dotted, message=f"--set: {_yaml_message(error)}")], file) from error
    return document


def _text(path: Path) -> str:
    """Return the text of a study file. Raises `ConfigError`."""
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)  # a device may never end
        if len(content) <= MAX_BYTES:
            return content.decode("utf-8")
        reason = f"holds more than {MAX_BYTES / 2**20:g} MiB"
    except (OSError, ValueError) as error:
        reason = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    message = f"{reason}; allowed: a YAML text file; `study init TEMPLATE -o FILE` writes one"
    raise ConfigError([Problem(path="", message=message)], str(path))


def set_path(document: Document, dotted: str, value: object) -> None:
    """Set one value; mappings on the way are made. Raises `ValueError` where something else is in the way."""
    *parents, last = _keys(dotted)
    at: Any = document
    for step in parents:
        at = at.setdefault(step, {})
        if not isinstance(at, dict):
            raise ValueError(
                f"{step!r} holds {repr(at)[:60]}, which has no keys; allowed: a path to a key of a mapping"
            )
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
