"""Reads the settings once, from flags, environment and pipeline.toml, into a frozen Settings.

Flags override the environment (``FAILSOFT_KAFKA__BOOTSTRAP_SERVERS`` style), which overrides the file. A mistake is
refused before anything else happens. The error names the key, its allowed values and the nearest spelling.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from pydantic import AfterValidator, BaseModel, PrivateAttr, ValidationError, model_validator

from failsoft.models.catalog.fields import ModelName
from failsoft.schemas.config.key import means, written
from failsoft.schemas.config.refusal import Refused, near, refuse, toml
from failsoft.schemas.event import Envelope
from failsoft.schemas.formats.wire_format import WireFormat
from failsoft.topics.layout import Wanted
from failsoft.topics.names import LONGEST_TOPIC, NAME_PATTERN, Names, check_name
from failsoft.workers.connection import FILE, SECRET_KEYS, client_options
from failsoft.workers.pipeline_sections import Input, Kafka, Models, PipelineSection, Retry
from failsoft.workers.schema_sections import SchemaRegistry, ScoredOutput

ENV = "FAILSOFT_"
SECRET_KEYS_OF = {"kafka": SECRET_KEYS, "schema_registry": ("password", "bearer_token")}
"""The keys of each section that only the environment may have."""

SECRETS = tuple(f"{ENV}{section.upper()}__{key.upper()}" for section, keys in SECRET_KEYS_OF.items() for key in keys)

OTHER_ENV = {
    "FAILSOFT_PIPELINE": "The pipeline file, or its folder. Used when `--pipeline` is not given.",
    "FAILSOFT_WORKER_ID": "The worker's id. Used when `--id` is not given.",
    "FAILSOFT_CACHE": "The folder for the downloaded embedded Kafka. Default: the user's cache folder.",
}
"""Environment variables with the prefix ENV that are not keys of the pipeline file, and the meaning of each."""


class Settings(PipelineSection):
    """The settings of one pipeline."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _options: dict[str, Any] | None = PrivateAttr(default=None)

    name: Annotated[
        str,
        AfterValidator(lambda name: (check_name(name), name)[1]),
        written(NAME_PATTERN),
        means("The pipeline's name. It prefixes every topic, group and transactional id of the pipeline.", "car-loans"),
    ]
    model: Annotated[ModelName, means("The primary model: the name of a folder in the model repository.", "repayment")]
    guarantee: Annotated[
        Literal["exactly_once", "at_least_once"],
        means(
            "`at_least_once` has less latency, but may write duplicates after a crash. Neither loses events.",
            "at_least_once",
        ),
    ] = "exactly_once"
    kafka: Kafka = Kafka()
    input: Input
    retry: Retry = Retry()
    models: Models = Models()
    schema_registry: SchemaRegistry = SchemaRegistry()
    output: ScoredOutput = ScoredOutput()

    @model_validator(mode="after")
    def _own_topics_are_not_inputs(self) -> Settings:
        owned = [t for t in self.input.topics if self.names.owns(t)]
        if owned:
            raise ValueError(f"input.topics: {owned[0]!r} is one of the pipeline's own topics; events would loop")
        if len(set(self.input.topics)) < len(self.input.topics):
            raise ValueError("input.topics: a topic is named twice")
        problem = next(chain(self.kafka.problems(), self.schema_registry.problems(), self._format_problems()), None)
        if problem is not None:
            raise ValueError(problem)
        long = [t for t in map(self.names.retry, self.retry.delays) if len(t) > LONGEST_TOPIC]
        if long:
            raise ValueError(
                f"retry.delays: {long[0]!r} is longer than Kafka's {LONGEST_TOPIC} characters for a topic name"
            )
        return self

    def _format_problems(self) -> Iterator[str]:
        """Formats that need a registry where there is none."""
        for key, found in (("input.format", self.input.format), ("output.format", self.output.format)):
            if found != "json" and self.schema_registry.url is None:
                yield f"schema_registry.url: missing, but {key} is {found!r}: the schemas are in a registry"

    @property
    def folder(self) -> Path:
        """The pipeline file's folder. A relative repository path and a card's rule modules are looked up there.

        A link is not followed: a Kubernetes ConfigMap is mounted as a folder of links into another one.
        """
        return self._folder

    @property
    def names(self) -> Names:
        return Names(self.name)

    @property
    def envelope(self) -> Envelope:
        i = self.input
        registries = tuple(self.schema_registry.url.split(",")) if self.schema_registry.url else ()
        return Envelope(i.id, i.time, i.features, i.max_bytes, format=WireFormat(i.format), registries=registries)

    def connection(self) -> dict[str, Any]:
        """Keyword arguments for every aiokafka client of this pipeline. All clients share one TLS context, and tokens.

        Raises Refused for missing credentials or certificates. They are checked only here, because commands that do not
        use Kafka need none.
        """
        if self._options is None:
            self._options = client_options(self.kafka, self.folder)
        return dict(self._options)


def load(
    flag: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None, cwd: Path | None = None
) -> Settings:
    """Load the settings.

    The pipeline file is ``flag``, else FAILSOFT_PIPELINE of ``environ``, else pipeline.toml in ``cwd`` (default: the
    working directory). ``overrides`` are flags by dotted key; None means not given. Raises Refused.
    """
    path = flag or Path(environ.get("FAILSOFT_PIPELINE") or (cwd or Path()) / FILE)
    if path.is_dir():
        path = path / FILE
    try:
        raw = toml(str(path), path.read_text("utf-8"))
    except FileNotFoundError:
        hint = "give --pipeline, set FAILSOFT_PIPELINE, or create one with: failsoft init my-pipeline"
        raise Refused(str(path), [f"no such file; {hint}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise Refused(str(path), [f"not TOML: {e}"]) from None
    except OSError as e:
        raise Refused(str(path), [f"cannot be read: {e.strerror}"]) from None
    _refuse_secrets(str(path), raw)
    overlaid = _overlay(raw, environ)
    for key, value in (overrides or {}).items():
        if value is not None:
            _set(raw, key.split("."), value)
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as e:
        problems = refuse(str(path), e, Settings).problems
        raise Refused(str(path), [problem + _source(problem, overlaid) for problem in problems]) from None
    settings._folder = path.absolute().parent  # a link is not followed: see ``folder``
    root = Path(settings.models.repository)
    if not root.is_absolute():
        root = settings.folder / root
    return settings.model_copy(update={"models": settings.models.model_copy(update={"repository": str(root)})})


def _refuse_secrets(file: str, raw: Mapping[str, Any]) -> None:
    for section, keys in SECRET_KEYS_OF.items():
        given = raw.get(section)
        for key in keys:
            if isinstance(given, dict) and key in given:
                variable = f"{ENV}{section.upper()}__{key.upper()}"
                raise Refused(file, [f"{section}.{key}: a password must not be in a file; set {variable}"])


def _overlay(raw: dict[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Set the keys in ``raw`` that ``environ`` has as FAILSOFT_SECTION__KEY. Returns the variables used, by dotted key.

    For a key that is not text, the variable's text is parsed as TOML. Raises Refused for an unknown variable.
    """
    known = _variables()
    overlaid = {}
    for name in sorted(environ):
        if not name.startswith(ENV) or name in OTHER_ENV:
            continue
        if name not in known:
            raise Refused("environment", [f"{name}: no such setting{near(name, known)}"])
        path, form = known[name]
        _set(raw, path, _read(name, environ[name], form))
        overlaid[".".join(path)] = name
    return overlaid


def _source(problem: str, overlaid: Mapping[str, str]) -> str:
    """A note that names the environment variable of a refused value, if one set it."""
    key = re.split(r"[:\[]", problem)[0]
    return f" (set by {overlaid[key]})" if key in overlaid else ""


_Form = Literal["text", "list", "other"]
"""How a variable is read, by the type of its key."""


def _variables() -> dict[str, tuple[list[str], _Form]]:
    found: dict[str, tuple[list[str], _Form]] = {}
    for key, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            for inner, inner_field in section.model_fields.items():
                kind = inner_field.annotation
                form: _Form = "list" if get_origin(kind) is list else "other" if kind in (int, float) else "text"
                found[f"{ENV}{key.upper()}__{inner.upper()}"] = ([key, inner], form)
        else:
            found[f"{ENV}{key.upper()}"] = ([key], "text")
    return found


def _read(name: str, text: str, form: _Form) -> Any:
    """The value of a variable: its text, or TOML, or else a comma-separated list of bare words, as shells write it.

    For a list, a single value is a list of one: a topic may be named 1 or true.
    """
    if form == "text":
        return text
    try:
        value = toml("environment", f"{name} = {text}")[name]
    except tomllib.TOMLDecodeError:
        parts = [part.strip() for part in text.split(",")]
        if all(parts):
            return parts
        raise Refused("environment", [f"{name}: {text!r} is not a value"]) from None
    if form == "list" and not isinstance(value, list):
        return [value if isinstance(value, str) else text.strip()]
    return value


def _set(raw: dict[str, Any], path: list[str], value: Any) -> None:
    here = raw
    for part in path[:-1]:
        inner = here.setdefault(part, {})
        if not isinstance(inner, dict):
            return  # the section is not a table; validation reports it
        here = inner
    here[path[-1]] = value


def wanted(pipeline: Settings) -> Wanted:
    """The topics that this pipeline needs from its cluster."""
    i = pipeline.input
    replication = pipeline.kafka.replication or None
    registry = pipeline.schema_registry.url is not None
    return Wanted(pipeline.names, i.topics, pipeline.retry.rungs, i.partitions, replication, registry)
