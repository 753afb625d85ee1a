"""Read a study file: strict YAML, with overrides by dotted path."""

import copy
import math
import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path, PurePath
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
    """Load YAML 1.2 scalars and reject ambiguous or unbounded documents.

    `no`, 2024-01-31 and 12:30:00 are strings, `1e-4` is a number. Rejected: duplicate keys, explicit tags, integers
    that YAML 1.1 reads as octal, recursive values, deeply nested values, and aliases that expand to many values.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("merge", "null")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 - a position or a key
        """Compose a value; reject tags and deep nesting."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        is_text = tag == "tag:yaml.org,2002:str" and isinstance(event, yaml.ScalarEvent)
        if tag not in (None, "!") and not is_text:
            raise _yaml_error(f"the tag {tag} is not supported; allowed: plain values; remove the tag", event)
        if self._depth == MAX_DEPTH:
            raise _yaml_error(_TOO_DEEP, event)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def get_single_node(self) -> yaml.Node | None:
        """Compose the document. The size is checked before aliases and merge keys are expanded."""
        node = super().get_single_node()
        values, depth = _extent(node, {}) if node is not None else (0.0, 0)
        if values > MAX_VALUES:
            message = (
                f"holds more than {MAX_VALUES:,} values; allowed: at most this many, aliases expanded; remove some"
            )
            raise yaml.MarkedYAMLError(problem=message)
        if node is not None and depth > MAX_DEPTH:
            raise _yaml_error(_TOO_DEEP, node)
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        """Return the text of a scalar; reject half surrogate pairs, which cannot be encoded as UTF-8."""
        text: str = super().construct_scalar(node)
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise _yaml_error("holds half of a surrogate pair; allowed: complete Unicode characters; replace it", node)
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping; reject duplicate keys."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key == "<<" or key is None:
                continue
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} appears twice; allowed: each name once; rename or remove line {line}"
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _yaml_error(problem: str, source: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    mark: Any = source.start_mark
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _extent(node: yaml.Node, extents_by_node: dict[yaml.Node, tuple[float, int]]) -> tuple[float, int]:
    """Return number of values and depth of a node with aliases expanded; infinite for a recursive node."""
    if isinstance(node, yaml.ScalarNode):
        return 1, 1
    if node not in extents_by_node:
        extents_by_node[node] = math.inf, 1
        children = (
            [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else node.value
        )
        extents = [_extent(child, extents_by_node) for child in children]
        extents_by_node[node] = (
            1 + sum(size for size, _ in extents),
            1 + max((depth for _, depth in extents), default=0),
        )
    return extents_by_node[node]


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    if _OCTAL.match(text) and text.lstrip("+-0"):
        remedy = "allowed: decimal numbers, or text in quotes; remove the leading zero or add quotes"
        raise _yaml_error(f"{text} is octal in YAML 1.1 and decimal in YAML 1.2; {remedy}", node)
    if len(text) > MAX_DIGITS:
        raise _yaml_error(f"a number of {len(text):,} digits; allowed: at most {MAX_DIGITS} digits; shorten it", node)
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
    """Parse one YAML value. Aliases are expanded to copies, so that a change to one does not affect the others."""
    return _expand_aliases(yaml.load(text, Loader=_Loader))


def _expand_aliases(value: Any) -> Any:  # noqa: ANN401 - whatever the file holds
    if isinstance(value, dict):
        return {key: _expand_aliases(inner) for key, inner in value.items()}
    return [_expand_aliases(inner) for inner in value] if isinstance(value, list) else value


def read_document(path: Path, overrides: Iterable[str] = ()) -> Document:
    """Read a study file and apply `path=value` overrides. Raises `ConfigError`."""
    file = str(path)
    text = _read_text(path)
    try:
        document = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError([Problem(path="", message=_yaml_message(error))], file) from error
    if not isinstance(document, dict):
        problem = "is empty" if document is None else f"holds a {type(document).__name__}"
        message = f"{problem}; allowed: a mapping with name, data, stages, pathways, compare; `study init` writes one"
        raise ConfigError([Problem(path="", message=message)], file)
    for override in overrides:
        dotted, separator, value = override.partition("=")
        if not separator or not dotted:
            message = f"--set {override!r} has no value; allowed: --set path.in.spec=value"
            raise ConfigError([Problem(path=dotted, message=message)], file)
        try:
            set_path(document, dotted, parse_yaml(value))
        except ValueError as error:
            raise ConfigError([Problem(path=dotted, message=f"--set: {error}")], file) from error
        except yaml.YAMLError as error:
            raise ConfigError([Problem(path=dotted, message=f"--set: {_yaml_message(error)}")], file) from error
    return document


def document_of(values: Mapping[str, Any], overrides: Mapping[str, object], *, file: str) -> Document:
    """Return a mapping as a study file that says the same, with other values at dotted paths. Raises `ConfigError`.

    Args:
        values: Keys and values of a study file; paths are taken as text, tuples, ranges and arrays as lists.
        overrides: Values by dotted path, such as `compare.folds`.
        file: The name of the mapping, for messages.
    """
    document: Document = {}
    try:
        document = parse_yaml(_text_of(values))
    except yaml.YAMLError as error:
        raise ConfigError([Problem(path="", message=_yaml_message(error))], file) from error
    for dotted, value in overrides.items():
        try:
            set_path(document, dotted, parse_yaml(_text_of(value)))
        except ValueError as error:
            raise ConfigError([Problem(path=dotted, message=str(error))], file) from error
        except yaml.YAMLError as error:
            raise ConfigError([Problem(path=dotted, message=_yaml_message(error))], file) from error
    return document


def _text_of(value: object) -> str:
    try:
        text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    except RecursionError as error:  # such as a list that contains itself
        raise yaml.MarkedYAMLError(problem=_TOO_DEEP) from error
    return text


class _Dumper(yaml.SafeDumper):
    """Writes values of Python that a study file can hold: paths as text, sequences and arrays as lists, no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_other(dumper: yaml.SafeDumper, value: object) -> yaml.Node:
    """Return a number or array of numpy as numbers, a range as a list; refuse other values."""
    if isinstance(value, range):
        return dumper.represent_data(list(value))
    if hasattr(value, "tolist") and not isinstance(value, type):
        return dumper.represent_data(value.tolist())
    allowed = "allowed: text, numbers, true, false, none, lists and mappings; convert it"
    raise yaml.MarkedYAMLError(problem=f"{value!r} is a {type(value).__name__}; {allowed}")


_Dumper.add_multi_representer(PurePath, lambda dumper, path: dumper.represent_str(str(path)))
_Dumper.add_multi_representer(object, _represent_other)


def _read_text(path: Path) -> str:
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
    """Set one value; create missing mappings. Raises `ValueError` if the path crosses a value that is no mapping."""
    *parents, last_key = _split_path(dotted)
    mapping: Any = document
    for key in parents:
        mapping = mapping.setdefault(key, {})
        if not isinstance(mapping, dict):
            raise ValueError(
                f"{key!r} holds {repr(mapping)[:60]}, which has no keys; allowed: a path to a key of a mapping"
            )
    mapping[last_key] = value


def _split_path(dotted: str) -> list[str]:
    """Split a path. A factor of `compare` is one key that contains dots, such as segment.loss.dice."""
    head, _, factor = dotted.partition(".")
    is_factor = head == "compare" and factor and not factor.startswith("baseline.")
    return [head, factor] if is_factor else dotted.split(".")


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
