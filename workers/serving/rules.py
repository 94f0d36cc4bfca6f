"""Owns the loading of a chain's rules: Python functions in the pipeline file's folder or in an installed package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from failsoft.models.catalog.card import ModelCard
from failsoft.models.catalog.chain import LinkKind
from failsoft.schemas.config.refusal import Refused
from failsoft.workers.scoring.plan import Rule


class FolderFinder:
    """Finds top-level modules in ``folder``; with ``only``, no other one than that.

    As the last entry of ``sys.meta_path`` it finds what no other finder has found. An entry at the front of
    ``sys.path`` would let a ``random.py`` in that folder take the place of Python's own.
    """

    def __init__(self, folder: Path, only: str | None = None) -> None:
        self.folder = folder
        self.only = only

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a top-level module in the folder; a package finds its own modules."""
        if path is not None or self.only not in (None, name):
            return None
        spec = PathFinder.find_spec(name, [str(self.folder)], target)
        # A folder without __init__.py may hold only data: an installed package of that name comes before it.
        return None if spec is not None and spec.origin is None and self.only is not None else spec


def load_rules(card: ModelCard, where: str, folder: Path) -> dict[str, Rule]:
    """The functions that the chain names. Their modules are in ``folder``, or are installed ones.

    Raises Refused for a rule that cannot be imported or called, also when its module raises. Raises it too when Python
    finds another module of the same name than the one in ``folder``.
    """
    rules: dict[str, Rule] = {}
    for link in card.fallback.chain if card.fallback else ():
        if link.kind is not LinkKind.RULE or link.target is None:
            continue
        try:
            rules[link.target] = _load(link.target, folder)
        except _Unusable as e:
            raise Refused(where, [f"fallback.chain: rule:{link.target} {e}"]) from None
    return rules


class _Unusable(Exception):
    """A rule that cannot be used; the message says why."""


def _load(target: str, folder: Path) -> Rule:
    module, _, name = target.partition(":")
    if not any(isinstance(finder, FolderFinder) and finder.folder == folder for finder in sys.meta_path):
        sys.meta_path.append(FolderFinder(folder))
    try:
        rule: Rule | None = getattr(_import(module, folder), name, None)
    except (Exception, SystemExit) as e:  # the user's code runs here: it may raise anything
        reason = f"{type(e).__name__}: {e}"
        raise _Unusable(f"cannot be imported: {reason}; searched {folder} and the installed packages") from e
    _check_place(module, folder)
    if rule is None:
        raise _Unusable(f"cannot be imported: module {module!r} has no function {name!r}")
    if not callable(rule):
        raise _Unusable("is not a function")
    return rule


def _import(module: str, folder: Path) -> ModuleType:
    """The rule's own module is searched in the folder first, as Python searches the folder of a script."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == "failsoft":
        return importlib.import_module(module)
    first = FolderFinder(folder, only=top)
    sys.meta_path.insert(0, first)
    try:
        return importlib.import_module(module)
    finally:
        sys.meta_path.remove(first)


def _check_place(module: str, folder: Path) -> None:
    """Raises _Unusable if the folder has a file of this module and Python found another one."""
    base = folder.joinpath(*module.split("."))
    mine = [path for path in (base.with_name(f"{base.name}.py"), base / "__init__.py") if path.is_file()]
    if not mine or module.startswith("failsoft."):
        return
    spec = sys.modules[module].__spec__
    origin = None if spec is None else spec.origin
    if origin is None or not Path(origin).is_file():
        raise _Unusable(f"would not come from {mine[0]}: {module!r} is built into Python; rename yours")
    if not any(path.samefile(origin) for path in mine):
        raise _Unusable(f"would not come from {mine[0]}: {module!r} is also {origin}; rename yours")
