"""Private names of Ray: the code uses only listed ones, and the installed Ray has all of them."""

import ast
import inspect
import logging
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import ray
from packaging.requirements import Requirement
from packaging.version import Version
from ray._private.node import Node
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from cluster.ray_internals import PRIVATE_NAMES, PrivateName
from tests.test_packaging import PACKAGES, ROOT, RUNTIME

MEMBERS = {f"{entry.name}.{member}" for entry in PRIVATE_NAMES for member in entry.members}
LISTED = {name for entry in PRIVATE_NAMES for name in accumulate(entry.name.split("."), "{}.{}".format)} | MEMBERS
INSTANCES = {
    "ray._private.worker._global_node": Node,
    "ray.train.v2._internal.exceptions.WorkerHealthCheckFailedError": WorkerHealthCheckFailedError("", ValueError()),
}
"""Objects with the members of names that are None, or that have members only on instances."""
TEXT = re.compile(r"ray(\.\w+){2,}|node:__\w+")
"""A string that may be the name of a module or a resource of Ray."""


class RayNames(ast.NodeVisitor):
    """Collects the names of Ray that a module uses: imports, attributes, overrides, private arguments, strings."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._aliases: dict[str, str] = {}
        self._base: str | None = None

    def dotted(self, node: ast.AST) -> str | None:
        """Return the name of an expression that is, or comes from, a name of Ray."""
        name: str | None = None
        match node:
            case ast.Name(id=variable):
                name = self._aliases.get(variable)
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")) | ast.Name(id="self"), attr=attribute):
                inherited = self._base is not None and hasattr(resolve(self._base), attribute)
                name = joined(self._base, attribute) if inherited else None
            case ast.Attribute(value=value, attr=attribute):
                name = joined(self.dotted(value), attribute)
            case ast.Call(func=ast.Name(id="getattr" | "setattr"), args=[value, ast.Constant(value=attribute), *_]):
                name = joined(self.dotted(value), attribute)
            case ast.Call(func=ast.Attribute(value=value, attr="instance")):
                name = self.dotted(value)
            case ast.Call(func=function):
                called = self.dotted(function)
                name = called if called and called.rpartition(".")[2][0].isupper() else None  # a class
        return name

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] == "ray":
                self.names.add(alias.name)
                self._aliases[alias.asname or "ray"] = alias.name if alias.asname else "ray"

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if (node.module or "").split(".")[0] == "ray":
            for alias in node.names:
                self._aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                self.names.add(f"{node.module}.{alias.name}")

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        self._assign(node.targets[0], node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if node.value is not None:
            self._assign(node.target, node.value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        name = self.dotted(value)
        if isinstance(target, ast.Name) and name:
            self._aliases[target.id] = name

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, parameters = self._aliases, {parameter.arg for parameter in node.args.args}
        self._aliases = {name: value for name, value in outer.items() if name not in parameters}
        self.generic_visit(node)
        self._aliases = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer, self._base = self._base, next(filter(None, map(self.dotted, node.bases)), None)
        for method in node.body:
            if self._base and isinstance(method, ast.FunctionDef) and hasattr(resolve(self._base), method.name):
                self.names.add(f"{self._base}.{method.name}")
        self.generic_visit(node)
        self._base = outer

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = self.dotted(node)
        if name:
            self.names.add(name)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = self.dotted(node.func)
        keywords = [argument.arg or "" for argument in node.keywords if function]
        self.names |= {f"{function}({keyword})" for keyword in keywords if keyword.startswith("_")}
        self.names |= {name for name in [self.dotted(node)] if name}
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and TEXT.fullmatch(node.value):
            self.names.add(node.value)


def joined(owner: str | None, attribute: str) -> str | None:
    return owner and f"{owner}.{attribute}"


def ray_names(source: str) -> set[str]:
    visitor = RayNames()
    visitor.visit(ast.parse(source))
    return visitor.names


def resolve(name: str) -> Any:  # noqa: ANN401 - any object of Ray
    """Return the object with a dotted name, importing modules. Raises `AttributeError`."""
    value: Any = import_module("ray")
    parts = name.split(".")
    for count, part in enumerate(parts[1:], start=2):
        path = ".".join(parts[:count])
        if not hasattr(value, part) and hasattr(value, "__path__") and find_spec(path):
            import_module(path)
        value = getattr(value, part)
    return value


def is_private(name: str) -> bool:
    """Return whether Ray neither exports nor annotates a name as public or developer API."""
    if name.startswith("node:"):
        return True
    if re.search(r"[.(]_(?!_)", name):
        return True
    value, parts = resolve("ray"), name.split(".")
    for count, part in enumerate(parts[1:], start=2):
        owner, value = value, resolve(".".join(parts[:count]))
        if inspect.ismodule(value):
            continue
        exported = part in getattr(owner, "__all__", ()) or (part.startswith("__") and part.endswith("__"))
        return not exported and getattr(value, "_annotated", None) != getattr(value, "__name__", "")
    return False


def product_files() -> Iterator[Path]:
    table = ROOT / "cluster" / "ray_internals.py"
    return (path for name in PACKAGES for path in (ROOT / name).rglob("*.py") if path != table)


def test_every_private_name_of_ray_in_the_code_is_listed() -> None:
    unlisted = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in product_files()
        for name in ray_names(path.read_text(encoding="utf-8"))
        if name not in LISTED and is_private(name)
    }
    assert not unlisted, "use a public name, or add it to cluster/ray_internals.py"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from ray._private import services", "ray._private.services"),
        ("import ray\nray._private.worker.global_worker", "ray._private.worker.global_worker"),
        ("import ray as r\nworker = r._private.worker\nworker.x", "ray._private.worker.x"),
        ("import ray\nray.init(_node_ip_address='')", "ray.init(_node_ip_address)"),
        ("from ray.tune import registry\nregistry._global_registry", "ray.tune.registry._global_registry"),
        ("from ray.tune import registry\ngetattr(registry, '_make_key')", "ray.tune.registry._make_key"),
        ("from ray.tune.execution.tune_controller import RayActorManager",
         "ray.tune.execution.tune_controller.RayActorManager"),
        ("from ray.job_submission import JobSubmissionClient as C\nclass A(C):\n  def f(self): self._upload_package",
         "ray.job_submission.JobSubmissionClient._upload_package"),
        ("from ray.train.torch import TorchConfig\nclass A(TorchConfig):\n  def _repr_html_(self): ...",
         "ray.train.torch.TorchConfig._repr_html_"),
        ("NAME = 'ray._private.services'", "ray._private.services"),
    ],
)  # fmt: skip
def test_private_name_is_detected_in_code(code: str, name: str) -> None:
    assert name in ray_names(code)
    assert is_private(name)


def test_public_names_are_not_private() -> None:
    code = """
import ray
from ray import tune
from ray.tune.experiment import Trial
ray.init(address="")
ray.util.get_node_ip_address()
ray.__version__, ray.ObjectRef, tune.Tuner, Trial.PENDING
"""
    names = ray_names(code)
    assert {"ray.init", "ray.tune.Tuner", "ray.tune.experiment.Trial.PENDING"} <= names
    assert not [name for name in names if is_private(name)]


@pytest.mark.parametrize("entry", PRIVATE_NAMES, ids=lambda entry: entry.name)
def test_installed_ray_has_every_listed_name(entry: PrivateName) -> None:
    folder = Path(ray.__file__).parent
    if entry.name.endswith(")"):
        function, _, argument = entry.name.rstrip(")").partition("(")
        assert f'"{argument}"' in inspect.getsource(inspect.unwrap(resolve(function)))
        compiled = (folder / "_raylet.so").read_bytes()
        assert [key for key in entry.members if key.encode() not in compiled] == []
    elif entry.name.startswith("node:"):
        from ray._common.constants import HEAD_NODE_RESOURCE_NAME

        assert entry.name == HEAD_NODE_RESOURCE_NAME
    elif "logger" in entry.used_for:
        assert logging.getLogger(entry.name) in vars(resolve(entry.name)).values()
    else:
        value = resolve(entry.name)
        owner = INSTANCES.get(entry.name, value)
        assert [member for member in entry.members if not hasattr(owner, member)] == []


@pytest.mark.parametrize("entry", PRIVATE_NAMES, ids=lambda entry: entry.name)
def test_every_listed_name_is_used(entry: PrivateName) -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in product_files())
    last = entry.members or (entry.name.rstrip(")").rpartition("(")[2].rpartition(".")[2],)
    assert [name for name in last if not re.search(rf"\b{name}\b", sources)] == []


def test_ray_requirement_is_limited_to_the_release_of_the_listed_names() -> None:
    (requirement,) = [Requirement(line) for line in RUNTIME if line.startswith("ray[")]
    installed = Version(ray.__version__)
    major, minor = installed.release[:2]
    assert requirement.specifier.contains(ray.__version__)
    assert not requirement.specifier.contains(f"{major}.{minor + 1}.0")
    assert {Version(entry.seen_in).release[:2] for entry in PRIVATE_NAMES} == {(major, minor)}
