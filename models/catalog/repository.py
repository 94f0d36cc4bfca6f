"""The model repository on disk: cards, complete versions, checksums and training statistics."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from failsoft.models.catalog.card import ModelCard, load_card
from failsoft.models.catalog.feature_section import FeatureSection
from failsoft.models.catalog.fields import Finite, Value
from failsoft.models.catalog.graph import facts, one_file
from failsoft.models.catalog.statistics import Statistic, fill
from failsoft.schemas.config.refusal import Refused, near, refuse, toml
from failsoft.schemas.model_version import ModelVersion

_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class UnknownModel(LookupError):
    """No such model, or no such complete version of it. The message lists what exists."""


class NotOneFile(Refused):
    """A version that stores weights in other files, which its checksum does not cover."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One complete version of a model.

    Attributes:
        model: the model's name.
        version: the version's number.
        path: its model.onnx.
        sha256: the checksum of the file when it was read (hex).
        trained_at: when it was trained, by version.toml.
        metrics: its metrics, by version.toml.
        statistics: training statistics by feature. A statistic in the card takes precedence over version.toml.
        declared: version.toml has the checksum too. Without it, a half-copied file cannot be told from a whole one.
    """

    model: str
    version: int
    path: Path
    sha256: str
    trained_at: datetime | None
    metrics: Mapping[str, float]
    statistics: Mapping[str, Statistic]
    declared: bool = False

    @property
    def key(self) -> str:
        return str(ModelVersion(self.model, self.version))


class _Statistics(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Finite | None = None
    median: Finite | None = None
    mode: Value | None = None


class _VersionFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    trained_at: datetime | None = None
    metrics: dict[str, Finite] = {}
    statistics: dict[str, _Statistics] = {}


class Repository:
    """``<root>/<model>/card.toml`` and ``<root>/<model>/<version>/model.onnx`` (+ version.toml).

    Each call reads the disk, so that versions copied in while a worker runs are found. Only checksums are cached, as
    long as the size and the modification time of the file stay the same; and what is in other files, by checksum.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._checksums: dict[Path, tuple[tuple[int, int], str]] = {}
        self._external: dict[str, tuple[str, ...]] = {}

    def models(self) -> list[str]:
        """The names of the folders that have a card, sorted. Raises Refused if the repository is not a folder."""
        if not self.root.is_dir():
            raise Refused(str(self.root), ["is not a folder, so it cannot be a model repository"])
        return sorted(card.parent.name for card in self.root.glob("*/card.toml"))

    def card(self, model: str) -> ModelCard:
        """The card of ``model``. Raises UnknownModel, or Refused for a card that cannot be used."""
        path = self._folder(model) / "card.toml"
        card = load_card(path)
        if card.name != model:
            message = f"model.name: {card.name!r}, but chains and commands use its folder's name {model!r}"
            raise Refused(str(path), [message])
        return card

    def versions(self, model: str, mistaken: Callable[[Refused], object] | None = None) -> list[int]:
        """The complete versions, newest first. A complete version has a model.onnx that matches version.toml's sha256.

        A version that is still being copied, version.toml included, is left out until it is complete. Raises
        UnknownModel, or Refused for a version.toml with an unknown key or an invalid value. If ``mistaken`` is given,
        it is called with that error instead, and the other versions are still returned.
        """
        folder = self._folder(model)
        complete = []
        numbers = [int(entry.name) for entry in folder.iterdir() if _VERSION.fullmatch(entry.name)]
        for number in sorted(numbers, reverse=True):
            try:
                if self._incomplete(folder / str(number)) is None:
                    complete.append(number)
            except Refused as error:
                if mistaken is None:
                    raise
                mistaken(error)
        return complete

    def incomplete(self, model: str) -> dict[int, str]:
        """The incomplete versions, and why each is incomplete. Raises the same errors as ``versions``."""
        folder = self._folder(model)
        numbers = sorted(int(entry.name) for entry in folder.iterdir() if _VERSION.fullmatch(entry.name))
        return {v: why for v in numbers if (why := self._incomplete(folder / str(v))) is not None}

    def artifact(self, model: str, version: int) -> Artifact:
        """One version of ``model``. Raises UnknownModel if it is missing or incomplete, Refused if it cannot serve."""
        card = self.card(model)
        folder = self._folder(model) / str(version)
        why = self._incomplete(folder)
        if why is not None:
            available = ", ".join(map(str, self.versions(model, mistaken=lambda error: None))) or "none"
            raise UnknownModel(f"{model}@{version}: {why}; complete versions: {available}")
        path = folder / "model.onnx"
        about = _version_file(folder)
        sha256 = self._checksum(path)
        if sha256 not in self._external:  # a model may have gigabytes
            self._external[sha256] = facts(path.read_bytes()).external
        external = self._external[sha256]
        if external:
            lost = [f"{name[:80]!r} is not in {folder}" for name in external if not os.path.isfile(folder / name)]
            raise NotOneFile(str(path), [one_file(external), *lost[:3]])
        statistics = {name: Statistic(s.mean, s.median, s.mode) for name, s in about.statistics.items()}
        problems = [p for f in card.features if (p := _problem(f, statistics, folder)) is not None]
        if problems:
            raise Refused(str(self._folder(model) / "card.toml"), problems)
        for f in card.features:
            given = statistics.get(f.name, Statistic())
            statistics[f.name] = Statistic(
                given.mean if f.mean is None else f.mean,
                given.median if f.median is None else f.median,
                given.mode if f.mode is None else f.mode,
            )
        declared = about.sha256 is not None
        return Artifact(model, version, path, sha256, about.trained_at, about.metrics, statistics, declared)

    def _folder(self, model: str) -> Path:
        known = self.models()
        if model not in known:
            available = ", ".join(known) or "none"
            raise UnknownModel(f"no model {model!r} in {self.root}{near(model, known)}; available: {available}")
        return self.root / model

    def _incomplete(self, folder: Path) -> str | None:
        """Why the version in ``folder`` is incomplete, or None."""
        if not (folder / "model.onnx").is_file():
            return "it has no model.onnx"
        try:
            declared = _version_file(folder).sha256
            if declared is not None and declared != self._checksum(folder / "model.onnx"):
                return "model.onnx does not match version.toml's sha256: it is half copied, or was changed"
        except tomllib.TOMLDecodeError as error:
            return f"version.toml is half written: {error}"
        except OSError as error:  # the version may be deleted at this moment
            return f"{error.filename} cannot be read: {error.strerror}"
        return None

    def _checksum(self, path: Path) -> str:
        stat = path.stat()
        same = (stat.st_mtime_ns, stat.st_size)
        known = self._checksums.get(path)
        if known is not None and known[0] == same:
            return known[1]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._checksums[path] = (same, digest)
        return digest


def _version_file(folder: Path) -> _VersionFile:
    """The version.toml in ``folder``. Raises Refused for an invalid key, TOMLDecodeError if it is not (yet) TOML."""
    path = folder / "version.toml"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        return _VersionFile.model_validate(toml(str(path), text))
    except FileNotFoundError:
        return _VersionFile()
    except ValidationError as error:
        raise refuse(str(path), error, _VersionFile) from error


def _problem(feature: FeatureSection, statistics: Mapping[str, Statistic], folder: Path) -> str | None:
    """Why ``feature`` cannot be imputed as the card says, or None."""
    if feature.impute is None or not feature.impute.method.statistic:
        return None
    key = feature.impute.method.value
    value = fill(feature, statistics)
    if value is None:
        where = f"[statistics.{feature.name}] {key} in {folder / 'version.toml'}"
        return f"features: {feature.name!r} is imputed by its {key}: add {key} = … here in the card, or {where}"
    try:
        feature.check(f"its {key}", value)
    except ValueError as error:
        return f"features: {error}"
    return None
