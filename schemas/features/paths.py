"""Finds values in events by paths with dots, such as ``payload.after.amount``.

A name that has dots itself is found first, and the longest such name before shorter ones: of ``{"a.b": 1, "a": {"b":
2}}``, the path ``a.b`` finds 1. A path leads through objects only: it has no indexes into arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Any

from failsoft.schemas.features.words import kind


@dataclass(frozen=True, slots=True)
class Absent:
    """A path that leads to nothing. ``why`` says in words where it ends."""

    why: str


MISSING = Absent("missing")
"""A plain name that an object lacks."""


def find(value: object, path: str) -> Any:
    """The value at ``path`` in a JSON value, or an ``Absent`` that says where the path ends. A null is a value.

    ``value`` may be what another ``find`` gave: in an ``Absent`` all is absent, for the same reason. Each cut of the
    path is tried, from the longest first name to the shortest. This takes no more steps than the event has values on
    the way, for every other cut ends at once.
    """
    place = locate(value, path)
    if place is not None:
        parent, name = place
        return parent[name]
    if isinstance(value, Absent):
        return value
    if "." not in path:
        return MISSING if type(value) is dict else Absent(f"{kind(value)}, not an object")
    return _end(value, path)


def locate(value: object, path: str) -> tuple[dict[str, Any], str] | None:
    """The object that has the value at ``path``, and its name there; None if the path leads to nothing."""
    if type(value) is not dict:
        return None
    if path in value:
        return value, path
    for name, rest in _cuts(path):
        if name in value:
            found = locate(value[name], rest)
            if found is not None:
                return found
    return None


@lru_cache(maxsize=4096)
def _cuts(path: str) -> tuple[tuple[str, str], ...]:
    """The path cut in two at each dot, the longest first part first."""
    at = [i for i, letter in enumerate(path) if letter == "."]
    return tuple((path[:i], path[i + 1 :]) for i in reversed(at))


def _end(value: object, path: str) -> Absent:
    """Where ``path`` ends in ``value``, if each dot is a step into an object."""
    at, way = value, ""
    for name in path.split("."):
        if type(at) is not dict:
            return Absent(f"{way} is {kind(at)}, not an object" if way else f"{kind(at)}, not an object")
        if name not in at:
            return Absent(f"{way} has no {name!r}" if way else f"there is no {name!r}")
        at, way = at[name], f"{way}.{name}" if way else name
    raise AssertionError("a path that leads to a value has no end")


class Getter:
    """Reads several paths of many JSON objects at once.

    Plain names cost one call at C speed an object. Paths with dots cost one list comprehension a step.
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        """``paths``: at least one; values come back in their order."""
        self._paths = paths
        self._names = _getter(paths)
        self._each = [itemgetter(path) for path in paths]
        self._tree = _tree(paths) if any("." in path for path in paths) else None

    def columns(self, values: Sequence[Any]) -> list[list[Any]] | None:
        """One list of values for each path; None if one of ``values`` lacks a path."""
        try:
            return [list(map(name, values)) for name in self._each]
        except (KeyError, TypeError, IndexError):
            return self._nested(values)

    def rows(self, values: Sequence[Any]) -> list[tuple[Any, ...]] | None:
        """One tuple of values for each of ``values``; None if one of them lacks a path: see ``filled``."""
        try:
            return list(map(self._names, values))
        except (KeyError, TypeError, IndexError):
            columns = self._nested(values)
            return None if columns is None else list(zip(*columns, strict=True))

    def _nested(self, values: Sequence[Any]) -> list[list[Any]] | None:
        if self._tree is None:
            return None
        columns: list[list[Any]] = [[]] * len(self._paths)
        try:
            self._tree.read(values, columns)
        except (KeyError, TypeError, IndexError):
            return None
        return columns

    def filled(self, values: Iterable[Mapping[str, Any]], absent: Sequence[object]) -> list[tuple[Any, ...]]:
        """One tuple of values for each of ``values``, in place of each that is not there the one in ``absent``."""
        get, pairs, made = self._names, list(zip(self._paths, absent, strict=True)), []
        for value in values:
            try:
                made.append(get(value))
            except KeyError:
                if self._tree is None:
                    made.append(tuple([value.get(path, other) for path, other in pairs]))
                else:
                    made.append(_found(value, pairs))
        return made


def _found(value: Mapping[str, Any], pairs: Sequence[tuple[str, object]]) -> tuple[Any, ...]:
    found = [(find(value, path), other) for path, other in pairs]
    return tuple([other if isinstance(at, Absent) else at for at, other in found])


@lru_cache(maxsize=256)
def getter(paths: tuple[str, ...]) -> Getter:
    """The Getter of these paths. Kept: a pipeline has few."""
    return Getter(paths)


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) == 1:
        (name,) = names  # itemgetter with one key returns the value, not a tuple
        return lambda value: (value[name],)
    return itemgetter(*names)


@dataclass(slots=True)
class _Tree:
    """Paths by their steps.

    Attributes:
        leaves: the places and names of the values that are here.
        branches: the objects below, by name.
        dotted: names with dots that would be found before the steps into ``branches``.
    """

    leaves: list[tuple[int, str]] = field(default_factory=list)
    branches: dict[str, _Tree] = field(default_factory=dict)
    dotted: set[str] = field(default_factory=set)

    def read(self, values: Sequence[Any], columns: list[list[Any]]) -> None:
        """Set the columns of these paths. Raises KeyError, TypeError or IndexError if a value lacks one, or if a name
        with dots must be found first.
        """
        if self.dotted and not self.dotted.isdisjoint(set().union(*values)):
            raise KeyError
        for place, name in self.leaves:
            columns[place] = [value[name] for value in values]
        for name, tree in self.branches.items():
            tree.read([value[name] for value in values], columns)


def _tree(paths: Sequence[str]) -> _Tree:
    root = _Tree()
    for place, path in enumerate(paths):
        at, rest = root, path
        while "." in rest:
            at.dotted.add(rest)
            at.dotted.update(name for name, _ in _cuts(rest) if "." in name)
            name, rest = rest.split(".", 1)
            at = at.branches.setdefault(name, _Tree())
        at.leaves.append((place, rest))
    return root
