"""Makes descriptors of Protobuf schemas: runs protoc in a subprocess with limits.

A registry gives a schema as the text of its .proto file, or as a serialized descriptor in base64. What it imports comes
from its references; files of ``google/protobuf``, ``google/type`` and ``confluent`` are here.
"""

from __future__ import annotations

import asyncio
import binascii
import os
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

from failsoft.models.vetting import bounded_process
from failsoft.models.vetting.bounded_process import Limits
from failsoft.schemas.formats.protobuf import MAX_DESCRIPTORS
from failsoft.schemas.formats.registered import MAX_SCHEMA, Registered, Unusable

LIMITS = Limits(memory=512_000_000, times=0, cpu=5.0, wall=20.0)
"""protoc takes 0.1 s for a schema of some messages, and 1 s for a megabyte of them."""

MOST_FILES = 1000
"""Files that a schema may import."""

OURS = Path(__file__).parent / "protos"
"""Confluent's files, which its serializers do not register."""

_ROOT = "schema-of-events.proto"
_SET, _LOG = "given.bin", "errors.txt"
MADE = "made.bin"
"""The file with protoc's result."""
_READ = 10_000
"""Characters of protoc's errors that are read; there may be many megabytes."""
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*", re.ASCII)
_NAME = re.compile(r"[\w.+@ -]+(/[\w.+@ -]+)*\.proto", re.ASCII)
_LONGEST_NAME = 200
_NO_ERROR = re.compile(r"[IW]\d{4} |WARNING: ", re.ASCII)
_ERRORS = 500
"""Characters of protoc's errors in a message."""

_ONE_AT_A_TIME = ThreadPoolExecutor(1, "protoc")


class ProtocFailed(RuntimeError):
    """protoc could not be run to its end. The text says why; the schema may be good."""


async def descriptors(registered: Registered) -> bytes:
    """A serialized FileDescriptorSet of this schema: its own file is the last, each after those that it imports.

    Takes at most LIMITS.wall seconds, one schema at a time. Raises Unusable if protoc refuses the schema, and
    ProtocFailed if it could not be run.
    """
    return await asyncio.get_running_loop().run_in_executor(_ONE_AT_A_TIME, compiled, registered)


def compiled(registered: Registered) -> bytes:
    """``descriptors``; blocks."""
    _check(registered)
    try:
        with tempfile.TemporaryDirectory(prefix="failsoft-protoc-") as folder:
            return _run(registered, Path(folder))
    except OSError as e:
        raise ProtocFailed(f"protoc could not be run: {e.strerror}") from e


def _run(registered: Registered, folder: Path) -> bytes:
    write(registered, folder)
    ended = bounded_process.run("failsoft.workers.schema_registry.protoc", [str(folder)], LIMITS)
    if ended.code == 0:
        return (folder / MADE).read_bytes()
    began = (folder / _LOG).exists()
    if began:
        with (folder / _LOG).open("rb") as log:
            ended = replace(ended, err=log.read(_READ).decode("utf-8", "replace"))
    if began and ended.code in (1, -signal.SIGXFSZ) and not ended.late:
        raise Unusable(f"protoc refuses it: {_first(ended.err)}")
    why = f"protoc: {bounded_process.why_ended(ended, LIMITS, LIMITS.memory)}"
    if ended.late or ended.code == -signal.SIGKILL or not began:
        raise ProtocFailed(why)
    raise Unusable(why)


def _check(registered: Registered) -> None:
    """Raises Unusable for a schema that protoc is not asked about."""
    texts = [registered.text, *(each.text for each in registered.references)]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if size > MAX_SCHEMA:
        raise Unusable(f"the schema has {size} bytes with its references, over the limit of {MAX_SCHEMA}")
    if len(registered.references) > MOST_FILES:
        raise Unusable(f"{len(registered.references)} references, over the limit of {MOST_FILES}")
    names = {_ROOT, *(each.name for each in registered.references)}
    if len(names) <= len(registered.references):
        raise Unusable("two of its references have one name")
    for name in names:
        if len(name) > _LONGEST_NAME or _NAME.fullmatch(name) is None or not {".", ".."}.isdisjoint(name.split("/")):
            raise Unusable(f"a reference is named {name[:_LONGEST_NAME]!r}: the path of a .proto file is right")
        if any(str(folder) in names for folder in PurePosixPath(name).parents):
            raise Unusable(f"a reference is named {name!r}, in a folder that is a file of another")


def write(registered: Registered, folder: Path) -> None:
    """Write what protoc reads: the schema, its references, and those that are descriptors already."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
    from google.protobuf.message import DecodeError

    given = FileDescriptorSet()
    texts = folder / "texts"
    for name, text in ((_ROOT, registered.text), *((each.name, each.text) for each in registered.references)):
        if name.startswith("google/protobuf/"):
            continue  # protoc's own, which fit its own descriptors
        if _BASE64.fullmatch(text):
            try:
                file = FileDescriptorProto.FromString(binascii.a2b_base64(text))
            except (DecodeError, binascii.Error) as e:
                raise Unusable(f"{name}: neither a .proto file nor a descriptor in base64: {e}") from None
            file.name = name
            given.file.append(file)
            continue
        path = texts / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace")
    (folder / _SET).write_bytes(given.SerializeToString())


def _first(errors: str) -> str:
    """protoc's first errors, on one line."""
    lines = (line.removeprefix(f"texts/{_ROOT}:").strip() for line in errors.splitlines())
    shown = "; ".join(line for line in lines if line and not line.startswith("warning") and not _NO_ERROR.match(line))
    return (shown or "it says nothing")[:_ERRORS]


def run(folder: Path) -> int:
    """Run protoc in this process on what ``write`` wrote; its exit code. It writes its result to ``MADE`` there."""
    import google.type  # type: ignore[import-untyped]
    from grpc_tools import protoc

    googles = str(Path(next(iter(google.type.__path__))).parents[1])
    protocs = str(Path(protoc.__file__).parent / "_proto")
    paths = [f"-I{path}" for path in (protocs, folder / "texts", OURS, googles)]
    files = [f"--descriptor_set_in={folder / _SET}", "--include_imports", f"-o{folder / MADE}", _ROOT]
    code: int = protoc.main(["protoc", *paths, *files])
    return code


def main(arguments: Sequence[str]) -> None:
    """Runs in the subprocess: FOLDER CPU WALL PARENT."""
    folder, *times = arguments
    bounded_process.confine(*times)
    os.chdir(folder)
    os.dup2(os.open(_LOG, os.O_WRONLY | os.O_CREAT), 2)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_DESCRIPTORS, MAX_DESCRIPTORS))
    bounded_process.bound_memory(LIMITS.memory)
    os._exit(run(Path()))


if __name__ == "__main__":
    main(sys.argv[1:])
