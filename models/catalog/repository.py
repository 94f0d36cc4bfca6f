"""Models on disk: cards, complete versions, checksums, and the statistics that imputation needs."""

from __future__ import annotations

import hashlib
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
from failsoft.models.catalog.statistics import Statistic, fill
from failsoft.schemas.config.refusal import Refused, near, refuse, toml
from failsoft.schemas.model_version import ModelVersion

_VERSION = re.compile(r"[1-9][0-9]{0,8}")
# TensorProto.external_data (field 13) whose first entry's key is "location": weights kept in another file. The tag
# tells it from metadata, which are of the same message type under other fields.
_EXTERNAL = re.compile(rb"\x6a.{1,2}\x0a\x08location\x12", re.DOTALL)


class UnknownModel(LookupError):
    """No such model, or no such complete version of it; the message says what there is."""


class NotOneFile(Refused):
    """A version whose weights are (partly) in other files, which no checksum holds."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One version of a model, whose file had the checksum ``sha256`` (hex) when it was opened.

    ``statistics`` are of its training data by feature, those of the card before those of version.toml. ``declared``
    says that version.toml has the checksum too: without it a half-copied file looks like a whole one.
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

    Reads the disk at each call, so that what is copied in while a worker runs is seen; only checksums are kept, for
    as long as a file's size and modification time stay the same.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._checksums: dict[Path, tuple[tuple[int, int], str]] = {}

    def models(self) -> list[str]:
        """The names of the folders that hold a card, in order. Raises Refused if the repository is no folder."""
        if not self.root.is_dir():
            raise Refused(str(self.root), ["is not a folder, so it cannot be a model repository"])
        return sorted(card.parent.name for card in self.root.glob("*/card.toml"))

    def card(self, model: str) -> ModelCard:
        """Raises UnknownModel, or Refused for a card that cannot be used."""
        path = self._folder(model) / "card.toml"
        card = load_card(path)
        if card.name != model:
            told = f"model.name: {card.name!r}, but its folder, by which chains and commands know it, is {model!r}"
            raise Refused(str(path), [told])
        return card

    def versions(self, model: str, mistaken: Callable[[Refused], object] | None = None) -> list[int]:
        """The complete versions, newest first: model.onnx is there, and is what version.toml's sha256 says.

        A version that is still being copied (its version.toml too) is left out until it is whole. Raises
        UnknownModel, or Refused for a version.toml with a key or a value that cannot be; ``mistaken``, if given, is
        told of that instead, and the other versions are found.
        """
        folder = self._folder(model)
        found = []
        numbers = [int(each.name) for each in folder.iterdir() if _VERSION.fullmatch(each.name)]
        for number in sorted(numbers, reverse=True):
            try:
                if self._incomplete(folder / str(number)) is None:
                    found.append(number)
            except Refused as error:
                if mistaken is None:
                    raise
                mistaken(error)
        return found

    def incomplete(self, model: str) -> dict[int, str]:
        """The versions that are not whole, and why not. Raises as ``versions`` does."""
        folder = self._folder(model)
        found = sorted(int(each.name) for each in folder.iterdir() if _VERSION.fullmatch(each.name))
        return {v: why for v in found if (why := self._incomplete(folder / str(v))) is not None}

    def artifact(self, model: str, version: int) -> Artifact:
        """Raises UnknownModel for a version that is not there or not whole, and Refused for one unfit to serve."""
        card = self.card(model)
        folder = self._folder(model) / str(version)
        why = self._incomplete(folder)
        if why is not None:
            there = ", ".join(map(str, self.versions(model, mistaken=lambda error: None))) or "none"
            raise UnknownModel(f"{model}@{version}: {why}; complete versions: {there}")
        path = folder / "model.onnx"
        about = _version_file(folder)
        sha256 = self._checksum(path)
        if _EXTERNAL.search(path.read_bytes()):
            advice = "save it as one: onnx.save(model, path, save_as_external_data=False)"
            raise NotOneFile(str(path), [f"keeps its weights in other files, and a version is a single file: {advice}"])
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
            there = ", ".join(known) or "none"
            raise UnknownModel(f"no model {model!r} in {self.root}{near(model, known)}; there: {there}")
        return self.root / model

    def _incomplete(self, folder: Path) -> str | None:
        """Why this version is not whole, or None."""
        if not (folder / "model.onnx").is_file():
            return "it has no model.onnx"
        try:
            told = _version_file(folder).sha256
            if told is not None and told != self._checksum(folder / "model.onnx"):
                return "model.onnx is not what version.toml's sha256 says: half copied, or changed since"
        except tomllib.TOMLDecodeError as error:
            return f"version.toml is half written: {error}"
        except OSError as error:  # it may be deleted just now
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
    """Raises Refused for a mistaken key, TOMLDecodeError for what is no TOML (yet)."""
    path = folder / "version.toml"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        return _VersionFile.model_validate(toml(str(path), text))
    except FileNotFoundError:
        return _VersionFile()
    except ValidationError as error:
        raise refuse(str(path), error, _VersionFile) from error


def _problem(feature: FeatureSection, statistics: Mapping[str, Statistic], folder: Path) -> str | None:
    """What keeps the card's wish for this feature from being granted, or None."""
    if feature.impute is None or not feature.impute.method.statistic:
        return None
    key = feature.impute.method.value
    value = fill(feature, statistics)
    if value is None:
        where = f"[statistics.{feature.name}] {key} in {folder / 'version.toml'}"
        return f"features: {feature.name!r} is imputed by its {key}: give {key} = … here in the card, or {where}"
    try:
        feature.check(f"its {key}", value)
    except ValueError as error:
        return f"features: {error}"
    return None
