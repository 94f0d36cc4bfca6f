"""Finds the private and undocumented names of aiokafka, Faust and mode that a source uses."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOREIGN = ("aiokafka", "faust", "mode")

# The modules in their documentation. Everything else counts as private, with or without an underscore.
DOCUMENTED = {
    "aiokafka",
    "aiokafka.abc",
    "aiokafka.admin",
    "aiokafka.admin.config_resource",
    "aiokafka.coordinator.assignors.range",
    "aiokafka.errors",
    "aiokafka.helpers",
    "aiokafka.partitioner",
    "faust",
    "faust.app",
    "mode",
}

STANDARD = {"_exit"}  # os._exit, which Python documents

_BY_NAME = ("getattr", "setattr", "hasattr", "delattr")


@dataclass(frozen=True)
class Use:
    """One use of a private name; ``name`` is "module:Name" if the module is known, else the bare name."""

    file: str
    line: int
    name: str


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def uses(file: str, source: str, ours: set[str]) -> Iterator[Use]:
    """The private names that a source uses. ``ours`` are private names that this project's own classes define."""
    tree = ast.parse(source)
    modules: dict[str, str] = {}  # a local name -> the foreign module, or the "module:Name", that it is
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in FOREIGN:
                    modules[alias.asname or alias.name.split(".")[0]] = alias.name
                    if alias.name not in DOCUMENTED:
                        yield Use(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FOREIGN:
            assert node.module is not None
            for alias in node.names:
                as_module = f"{node.module}.{alias.name}"
                inside = node.module not in DOCUMENTED or _private(alias.name)
                if _is_module(as_module):
                    modules[alias.asname or alias.name] = as_module
                else:
                    modules[alias.asname or alias.name] = f"{node.module}:{alias.name}"
                    if inside:
                        yield Use(file, node.lineno, f"{node.module}:{alias.name}")
    own = defined(tree) - _foreign_names()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield from _attribute(file, node, modules, own, ours)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _BY_NAME:
            given = node.args[1] if len(node.args) > 1 else None
            if isinstance(given, ast.Constant) and isinstance(given.value, str) and _private(given.value):
                yield Use(file, node.lineno, given.value)
        elif isinstance(node, ast.ClassDef) and any(_root(base) in modules for base in node.bases):
            yield from _overrides(file, node, modules)


def _attribute(file: str, node: ast.Attribute, modules: dict[str, str], own: set[str], ours: set[str]) -> Iterator[Use]:
    owner = node.value
    if isinstance(owner, ast.Name) and owner.id in modules:
        module = modules[owner.id]
        inside = _private(node.attr) or isinstance(node.ctx, ast.Store)
        if ":" not in module and module not in DOCUMENTED:
            yield Use(file, node.lineno, f"{module}:{node.attr}")
        elif inside:
            yield Use(file, node.lineno, node.attr)
    elif _private(node.attr) and node.attr not in STANDARD and node.attr not in (ours if _itself(owner) else own):
        yield Use(file, node.lineno, node.attr)


@functools.cache
def _foreign_names() -> frozenset[str]:
    """Every private name in the foreign packages.

    A file that defines one of these names itself may still use the foreign one, on another object. So such a name
    counts as its own only on ``self``.
    """
    found: set[str] = set()
    for package in FOREIGN:
        folder = Path(str(importlib.import_module(package).__file__)).parent
        for source in folder.rglob("*.py*"):
            if source.suffix in (".py", ".pyx"):
                found |= set(re.findall(r"\b_[A-Za-z]\w*", source.read_text("utf-8")))
    return frozenset(found)


def _overrides(file: str, node: ast.ClassDef, modules: dict[str, str]) -> Iterator[Use]:
    """Private names of a foreign base class that a class of this project defines or reads."""
    bases = [_resolve(base, modules) for base in node.bases if _root(base) in modules]
    for inner in ast.walk(node):
        name = inner.attr if isinstance(inner, ast.Attribute) else getattr(inner, "name", None)
        if isinstance(name, str) and _private(name) and any(_has(base, name) for base in bases):
            yield Use(file, inner.lineno, name)  # type: ignore[attr-defined]


def _has(kind: Any, name: str) -> bool:
    """Whether ``kind`` has ``name``, as a class attribute or as an attribute that its methods set."""
    if hasattr(kind, name):
        return True
    methods = [m for base in kind.__mro__ for m in vars(base).values() if inspect.isfunction(m)]
    return any(name in m.__code__.co_names for m in methods)


def is_used(name: str, source: str) -> bool:
    """Does a source use the ``module:Name`` or ``module:Class.attribute``, and not only another of the same spelling?

    It imports a name. It reads an attribute through the whole path after the class, or overrides it in a subclass.
    """
    kind, _, path = name.partition(":")[2].partition(".")
    if not path:
        return any(use.name == name for use in uses("", source, set()))
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and f".{ast.unparse(node)}".endswith(f".{path}"):
            return True
        if isinstance(node, ast.ClassDef) and any(ast.unparse(b).split(".")[-1] == kind for b in node.bases):
            named = (n for each in node.body for n in (each.targets if isinstance(each, ast.Assign) else [each]))
            if path in (getattr(n, "name", getattr(n, "id", None)) for n in named):
                return True
    return False


def defined(tree: ast.Module) -> set[str]:
    """The private names that a file defines: of modules, of classes, and of objects through ``self``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _itself(node.value):
            found.add(node.attr)
    return {name for name in found if _private(name)}


def _itself(node: ast.expr) -> bool:
    """Is an expression ``self``, ``cls`` or ``super()``?"""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _resolve(node: ast.expr, modules: dict[str, str]) -> Any:
    if isinstance(node, ast.Attribute):
        return getattr(_resolve(node.value, modules), node.attr)
    assert isinstance(node, ast.Name)
    module, _, name = modules[node.id].partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
