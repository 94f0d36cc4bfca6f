"""The libraries of formats that are installed only where they are wanted."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from failsoft.workers.commands.error_codes import CommandFailed

_LIBRARIES = {"avro": ("fastavro",), "protobuf": ("google.protobuf", "grpc_tools")}
"""The libraries of each extra that is named after a format."""

_SUFFIXES = {".avsc": "avro", ".proto": "protobuf"}


def need(schema: Path) -> None:
    """Raises CommandFailed, with the command that installs it, if a library for a schema's file is not installed."""
    if schema.suffix.lower() in _SUFFIXES:
        need_format(_SUFFIXES[schema.suffix.lower()])


def need_format(extra: str) -> None:
    """Raises CommandFailed, with the command that installs it, if a library of the format is not installed."""
    for library in _LIBRARIES.get(extra, ()):
        if not _installed(library):
            raise CommandFailed(f"{extra} needs {library}, which is not installed: pip install 'failsoft[{extra}]'")


def _installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
