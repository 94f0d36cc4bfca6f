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
    """Finds modules in ``folder`` that no other finder has found. The last entry of ``sys.meta_path``.

    An entry at the front of ``sys.path`` would let a ``random.py`` in that folder take the place of Python's own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a top-level module in the folder; a package finds its own modules."""
        return PathFinder.find_spec(name, [str(self.folder)], target) if path is None else None


def load_rules(card: ModelCard, where: str, folder: Path) -> dict[str, Rule]:
    """The functions that the chain names. Their modules are installed ones, or are in ``folder``.

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
        rule: Rule | None = getattr(importlib.import_module(module), name, None)
    except (Exception, SystemExit) as e:  # the user's code runs here: it may raise anything
        reason = f"{type(e).__name__}: {e}"
        raise _Unusable(f"cannot be imported: {reason}; searched the installed packages and {folder}") from e
    _check_place(module.partition(".")[0], folder)
    if rule is None:
        raise _Unusable(f"cannot be imported: module {module!r} has no function {name!r}")
    if not callable(rule):
        raise _Unusable("is not a function")
    return rule


def _check_place(top: str, folder: Path) -> None:
    """Raises _Unusable if ``folder`` has a module ``top`` and Python found another one."""
    mine = [path for path in (folder / top, folder / f"{top}.py") if path.exists()]
    if not mine or top == "failsoft":
        return
    module = sys.modules[top]
    found = [Path(path).resolve() for path in getattr(module, "__path__", [])]
    if module.__spec__ is not None and module.__spec__.has_location and module.__spec__.origin:
        found.append(Path(module.__spec__.origin).resolve())
    if not any(path.is_relative_to(folder.resolve()) for path in found):
        place = f"in {found[0]}" if found else "built into Python"
        raise _Unusable(f"would not come from {mine[0]}: {top!r} is also a module {place}; rename yours")
