"""Translates an exception that ends a command into a message on stderr and an exit code."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

FAILED = 1
USED_WRONGLY = 2
REFUSED = 3
UNREACHABLE = 4
INTERRUPTED = 130

CODES: dict[str, int] = {
    "failsoft.schemas.config.refusal.Refused": REFUSED,
    "failsoft.topics.admin.KafkaUnreachable": UNREACHABLE,
    "aiokafka.errors.KafkaConnectionError": UNREACHABLE,
    "failsoft.workers.identity.DuplicateId": USED_WRONGLY,
    "failsoft.workers.identity.InvalidId": USED_WRONGLY,
    "failsoft.workers.identity.NoOwnFolder": USED_WRONGLY,
    "failsoft.topics.admin.TopologyRefused": FAILED,
    "failsoft.topics.rights.NotAuthorised": FAILED,
    "failsoft.topics.embedded.broker.KafkaFailed": FAILED,
    "failsoft.models.catalog.repository.UnknownModel": FAILED,
    "failsoft.models.runtime.session.Unloadable": FAILED,
    "failsoft.workers.commands.error_codes.CommandFailed": FAILED,
    "failsoft.workers.kafka.topic_reader.NoSuchTopic": FAILED,
    "failsoft.workers.kafka.unreadable.Unreadable": FAILED,
    "failsoft.workers.operations.event_files.BadRow": FAILED,
    "failsoft.workers.schema_registry.client.RegistryRefusal": FAILED,
    "failsoft.workers.schema_registry.client.RegistryUnavailable": FAILED,
    "failsoft.schemas.scored_read.NoAvroReader": FAILED,
    "failsoft.workers.schema_registry.client.SchemaNotFound": FAILED,
    "failsoft.workers.schema_registry.protoc.ProtocFailed": FAILED,
    "failsoft.workers.operations.schema_file.UnusableFile": FAILED,
    "failsoft.workers.telemetry.http.CannotListen": FAILED,
    "failsoft.workers.telemetry.http.PortTaken": FAILED,
    # Without its own line, a replay that another one fenced would look like a bug.
    "aiokafka.errors.ProducerFenced": FAILED,
    "aiokafka.errors.InvalidTimestampError": FAILED,
    "aiokafka.errors.KafkaError": FAILED,
}
"""Exit codes by class name. Names instead of classes: a command must not import a client or runtime it does not use."""

_PREFIXES = {
    "aiokafka.errors.KafkaConnectionError": "Kafka cannot be reached: ",
    "aiokafka.errors.ProducerFenced": "another process took over (a second replay of this pipeline?): ",
    "aiokafka.errors.InvalidTimestampError": (
        "this machine's clock and the broker's differ by more than the topic's message.timestamp.after.max.ms or "
        "message.timestamp.before.max.ms allows; set this machine's clock: "
    ),
    "aiokafka.errors.KafkaError": "Kafka refused: ",
}


class CommandFailed(Exception):
    """The command could not do its work; the message says what to do. Exit code 1."""


class Interrupted(Exception):
    """The user interrupted a command; the message says how far it came. Exit code 130."""


def code_of(error: BaseException) -> int | None:
    """The exit code of an expected error, by its nearest base class in ``CODES``; None for a bug."""
    name = _listed(error)
    return None if name is None else CODES[name]


def message(error: BaseException) -> str:
    """The text for the user: the error's own message, with a prefix for errors of the Kafka client."""
    name = _listed(error)
    text = str(error) or type(error).__name__
    return _PREFIXES.get(name or "", "") + text


def _listed(error: BaseException) -> str | None:
    names = (f"{c.__module__}.{c.__qualname__}" for c in type(error).__mro__)
    return next((name for name in names if name in CODES), None)


class RootGroup(TyperGroup):
    """The root group: handles the exceptions of all commands. typer itself reports usage errors (exit code 2)."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command and translates its exception into a message and an exit code."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader closed the pipe (`| head`). Discard buffered output, or Python prints an error at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise typer.Exit(INTERRUPTED) from None
        except Interrupted as e:
            _print_error(str(e))
            raise typer.Exit(INTERRUPTED) from None
        except Exception as e:
            code = code_of(e)
            if code is None:
                raise  # a bug: its traceback is needed
            if ctx.obj is not None and ctx.obj.debug:
                traceback.print_exc()
            for line in message(e).splitlines():
                _print_error(line)
            raise typer.Exit(code) from None


def _print_error(line: str) -> None:
    typer.echo(f"failsoft: {line}", err=True)
