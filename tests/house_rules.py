"""What the house rules ask of a syntax tree: its imports, the names it uses, its impurities, what it swallows."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Collection, Iterator

PACKAGES = ("schemas", "topics", "models", "workers")
COMPUTED = "<computed>"
"""Stands for the name of a module that a file computes and then imports."""

# A pure file imports only these, besides pure files of ours. The list is positive, so a new module is a decision.
PURE_MODULES = {
    *("__future__", "bisect", "collections", "contextlib", "csv", "dataclasses", "datetime", "difflib", "enum"),
    *("functools", "itertools", "json", "math", "numbers", "operator", "re", "shlex", "tomllib", "types"),
    *("binascii", "decimal", "struct", "typing"),
    "hashlib.sha256",
    *("fastavro", "google.protobuf", "io.BytesIO", "numpy", "orjson", "pydantic", "pydantic_core"),
    *("rich.columns", "rich.console.Group", "rich.console.RenderableType", "rich.panel", "rich.table", "rich.text"),
}
# What these modules and Python itself offer that reads a clock, draws at random, or touches files or the terminal.
IMPURE_NAMES = {
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
    *("numpy.random", "numpy.load", "numpy.loadtxt", "numpy.genfromtxt", "numpy.fromfile", "numpy.memmap"),
    *("numpy.save", "numpy.savez", "numpy.savez_compressed", "numpy.savetxt", "numpy.ctypeslib"),
    *("builtins.open", "builtins.print", "builtins.input", "builtins.eval", "builtins.exec", "builtins.__import__"),
}
# Methods of a path, whatever object they are called on. Other path methods need pathlib, which is not in PURE_MODULES.
IMPURE_METHODS = {"read_text", "read_bytes", "write_text", "write_bytes"}

LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
CATCH_ALL = {"builtins.Exception", "builtins.BaseException"}


def _aliases(tree: ast.AST) -> dict[str, str]:
    """What each imported local name stands for, as a dotted name. Scopes are ignored."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                local = alias.asname or alias.name.split(".")[0]
                found[local] = alias.name if alias.asname else local
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def _dotted(node: ast.expr, aliases: dict[str, str]) -> str | None:
    """The full name of a name or of an attribute of an imported name; None if it is neither."""
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, aliases)
        return owner and f"{owner}.{node.attr}"
    if isinstance(node, ast.Name):
        return aliases.get(node.id) or (f"builtins.{node.id}" if hasattr(builtins, node.id) else None)
    return None


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The line and the full name of each use of an imported or built-in name."""
    aliases = _aliases(tree)
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Attribute, ast.Name)) or not isinstance(node.ctx, ast.Load):
            continue  # a field of a class may have the name of a built-in function
        if name := _dotted(node, aliases):
            yield node.lineno, name


def imports(tree: ast.AST) -> Iterator[str]:
    """The dotted names that a file imports anywhere: in functions, for type checking, and by ``import_module``."""
    aliases = _aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _dotted(node.func, aliases) in (
            "importlib.import_module",
            "importlib.__import__",
            "builtins.__import__",
            "runpy.run_module",
        ):
            given = [*node.args, *(k.value for k in node.keywords)][:1]
            literal = given and isinstance(given[0], ast.Constant) and isinstance(given[0].value, str)
            yield given[0].value if literal else COMPUTED  # type: ignore[attr-defined]


def within(name: str, allowed: Collection[str]) -> bool:
    """Is a dotted name one of ``allowed``, or inside one?"""
    return any(name == each or name.startswith(f"{each}.") for each in allowed)


def resolve(name: str, files: Collection[str]) -> tuple[str, str] | None:
    """The file of ours that a dotted name is in, and the name in it; None for other names."""
    parts = name.removeprefix("failsoft.").split(".")
    for end in range(len(parts), 0, -1) if parts[0] in PACKAGES else ():
        path = "/".join(parts[:end])
        for file in (f"{path}.py", f"{path}/__init__.py"):
            if file in files:
                return file, ".".join(parts[end : end + 1])
    return None


def uses_of_ours(tree: ast.AST, files: Collection[str]) -> set[tuple[str, str]]:
    """The files of ours that a file uses, each with the name that it uses in it; the name is empty for a module."""
    found = (resolve(name, files) for name in {*imports(tree), *(name for _, name in names(tree))})
    return {each for each in found if each}


def impurities(tree: ast.AST) -> set[str]:
    """What a file imports or uses that a pure file may not. Files of ours are not judged here."""
    foreign = {n for n in imports(tree) if n.split(".")[0] not in ("failsoft", *PACKAGES)}
    found = {name for name in foreign if not within(name, PURE_MODULES) and not _prefix(name)}
    found |= {name for name in foreign | {n for _, n in names(tree)} if within(name, IMPURE_NAMES)}
    found |= {f".{n.attr}" for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in IMPURE_METHODS}
    return found


def _prefix(name: str) -> bool:
    """Is ``name`` the package of a pure module? ``from rich import table`` also imports rich."""
    return any(module.startswith(f"{name}.") for module in PURE_MODULES)


def without(tree: ast.Module, functions: Collection[str]) -> ast.Module:
    """The file without some of its functions, and without the imports that only these use."""
    body = [n for n in tree.body if not (isinstance(n, ast.FunctionDef) and n.name in functions)]
    used = {n.id for statement in body for n in ast.walk(statement) if isinstance(n, ast.Name)}
    rest: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.ImportFrom):
            node = ast.ImportFrom(node.module, [a for a in node.names if (a.asname or a.name) in used], node.level)
        elif isinstance(node, ast.Import):
            node = ast.Import([a for a in node.names if (a.asname or a.name.split(".")[0]) in used])
        if not isinstance(node, (ast.Import, ast.ImportFrom)) or node.names:
            rest.append(node)
    return ast.Module(rest, [])


def swallows(tree: ast.AST) -> list[int]:
    """The lines that catch every exception only to drop or to log it."""
    aliases = _aliases(tree)
    found: list[int] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and (node.type is None or _catches_all(node.type, aliases)):
            if all(_does_nothing(s) for s in node.body):
                found.append(node.lineno)
        elif (
            isinstance(node, ast.Call)
            and _dotted(node.func, aliases) == "contextlib.suppress"
            and any(_catches_all(given, aliases) for given in node.args)
        ):
            found.append(node.lineno)
    return found


def _catches_all(kind: ast.expr, aliases: dict[str, str]) -> bool:
    if isinstance(kind, ast.Starred):
        return _catches_all(kind.value, aliases)
    if isinstance(kind, ast.Tuple):
        return any(_catches_all(each, aliases) for each in kind.elts)
    return _dotted(kind, aliases) in CATCH_ALL


def _does_nothing(statement: ast.stmt) -> bool:
    """Is a statement of a handler one that drops the error or only logs it?"""
    if isinstance(statement, ast.Return):
        return statement.value is None or isinstance(statement.value, ast.Constant)
    if not isinstance(statement, ast.Expr):
        return isinstance(statement, (ast.Pass, ast.Continue, ast.Break))
    call = statement.value
    if not isinstance(call, ast.Call):
        return isinstance(call, ast.Constant)
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in LOG_METHODS:
        return False
    owner = call.func.value
    named = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
    return named.strip("_") in ("log", "logger", "logging")


def sleeps(tree: ast.AST) -> list[int]:
    """The lines that use ``time.sleep``, by whatever name it was imported."""
    return [line for line, name in names(tree) if name == "time.sleep"]
