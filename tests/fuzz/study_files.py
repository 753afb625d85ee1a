"""Random changes to values, keys and the text of valid study files."""

import random
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from tests.support.documents import BASE, Document, base, compare
from tests.support.tiny import tiny

CATALOG = Path(__file__).parents[2] / "study" / "catalog"
SEARCH = base({
    "data.hospital.images": 60,
    "data.hospital.patients": 60,
    "search": {
        "trials": 4,
        "reserve": 0.5,
        "space": {
            "target.optimizer.lr": {"loguniform": [1.0e-5, 1.0e-2]},
            "target.loss": {"choices": [{"dice": 1.0}, {"focal": 1.0}]},
        },
        "prune": {"successive_halving": {"grace_period": 1}},
    },
})  # fmt: skip
EXTENDED = compare(**{
    "pathway": ["none", "two_step"],
    "segment.loss": [{"dice": 1.0}, {"tversky": 1.0, "focal": 2.0}],
    "exclude": [{"pathway": "two_step", "segment.loss": {"dice": 1.0}}],
    "include": [{"architecture": "fpn"}],
}) | {
    "resources": {"cpus": 1, "gpus": "auto"},
    "metrics": {"classes": ["heart"], "background": True},
    "published": [{"source": "a paper", "values": [{"value": 0.5, "match": {"pathway": "none"}}]}],
}  # fmt: skip

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 10**9, 10**18, 10**400, -(10**30), 0.0, 0.5, 1e-320, 1e308, -1e308, 1e-9,
    float("inf"), float("-inf"), float("nan"), "", " ", "x", "none", "own", "random", "unet", "resnet18", "a" * 5000,
    "../x", "/", "a\nb", "\x1b[31m", "\x1b]0;t\x07", "\u202egpj", "\0", "\x7f", "\ufeff", "é" * 3, "😀", "=1+1", "0x1F",
    "010", "1e3", "190:20:30", "2024-13-45", "yes", "null", "~", [], [None], [[]], [1, 1], list(range(2000)), {},
    {"file": "x"}, {"": 1}, {"a.b": 1}, {"x": {"y": {"z": 1}}}, {5: 1}, {None: 1}, {True: 1}, {1.5: 1},
    {"images": 4}, {"share": 0.5}, {"dice": 1.0}, {"uniform": [0, 1]},
)  # fmt: skip
TEXTS = (
    "&a ", "*a", "<<: ", "!!python/name:os.system ", "!!binary ", "!!set ", "!!int ", "? ", "- ", ": ", "[", "]", "{",
    "}", "'", '"', "|", ">", "%", "@", "`", "#", "---\n", "...\n", "\t", "\x00", "\x1b", "\u202e", "\ufeff", "\u2028",
    "012", "0o7", "1_000", "1:30", "2024-02-30", ".inf", ".nan", "9" * 500, "[" * 60, "~", "{a: " * 60, "\\ud800",
)  # fmt: skip


def valid_documents() -> list[Document]:
    """Return valid documents with all kinds of settings."""
    catalog = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(CATALOG.glob("*.yaml"))]
    return [deepcopy(BASE), EXTENDED, SEARCH, tiny(), *map(_on_generated_data, catalog)]


def _on_generated_data(document: Document) -> Document:
    """Return a catalog study with generated data instead of files."""
    data = {
        name: {"source": "phantom", "images": 30, "patients": 30, "seed": seed}
        for seed, name in enumerate(document["data"])
    }
    return document | {"data": data}


def mutated_files(seed: int, count: int) -> Iterator[bytes]:
    """Yield `count` study files, each with one to four changes."""
    documents = valid_documents()
    for position in range(count):
        generator = random.Random(f"{seed}/{position}")
        document = deepcopy(generator.choice(documents))
        for _ in range(generator.choice((1, 1, 1, 2))):
            generator.choice(CHANGES)(document, generator)
        text = _to_yaml(document)
        for _ in range(generator.choice((0, 0, 0, 1, 2))):
            text = generator.choice(TEXT_CHANGES)(text, generator)
        yield text


def _to_yaml(document: Document) -> bytes:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


def _paths(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from _paths(inner, (*path, key))


def _random_entry(document: Document, generator: random.Random) -> tuple[Any, Any]:
    """Return a container somewhere in the document and one of its keys."""
    *path, key = generator.choice(list(_paths(document)) or [("name",)])
    container: Any = document
    for step in path:
        container = container[step]
    return container, key


def _replace(document: Document, generator: random.Random) -> None:
    container, key = _random_entry(document, generator)
    container[key] = deepcopy(generator.choice(VALUES))


def _remove(document: Document, generator: random.Random) -> None:
    container, key = _random_entry(document, generator)
    if isinstance(container, list) or key in container:
        del container[key]


def _rename(document: Document, generator: random.Random) -> None:
    container, key = _random_entry(document, generator)
    if isinstance(container, dict) and key in container:
        name = generator.choice([f"{key}s", str(key)[:-1], f"{key}.x", "lr", "loss", "\x1b[0m", "a\nb", "😀", 5, None])
        container[name] = container.pop(key)


def _copy_value(document: Document, generator: random.Random) -> None:
    """Copy the value of one entry to another."""
    container, key = _random_entry(document, generator)
    value = deepcopy(container[key]) if isinstance(container, list) or key in container else None
    target, target_key = _random_entry(document, generator)
    target[target_key] = value


def _scale(document: Document, generator: random.Random) -> None:
    container, key = _random_entry(document, generator)
    value = container[key] if isinstance(container, list) or key in container else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        container[key] = value * generator.choice((0, -1, 10, 1e-9, 10**6, 0.5))
    elif isinstance(value, list):
        container[key] = value * generator.choice((0, 2, 300))


def _wrap(document: Document, generator: random.Random) -> None:
    container, key = _random_entry(document, generator)
    if isinstance(container, list) or key in container:
        container[key] = generator.choice(([container[key]], {"x": container[key]}, [[container[key]]]))


def _truncate(text: bytes, generator: random.Random) -> bytes:
    return text[: generator.randrange(len(text) + 1)]


def _flip_bits(text: bytes, generator: random.Random) -> bytes:
    changed = bytearray(text or b" ")
    for _ in range(generator.randint(1, 4)):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def _insert(text: bytes, generator: random.Random) -> bytes:
    position = generator.randrange(len(text) + 1)
    return text[:position] + generator.choice(TEXTS).encode("utf-8", "surrogatepass") + text[position:]


def _repeat_line(text: bytes, generator: random.Random) -> bytes:
    lines = text.splitlines(keepends=True) or [b""]
    line = generator.choice(lines)
    lines.insert(generator.randrange(len(lines) + 1), line)
    return b"".join(lines)


CHANGES = (_replace, _replace, _replace, _remove, _rename, _copy_value, _scale, _wrap)
TEXT_CHANGES = (_truncate, _flip_bits, _insert, _insert, _repeat_line)
