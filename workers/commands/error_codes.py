"""Errors are translated once, here: an exception that ends a command -> a message on stderr and an exit code."""

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
    "failsoft.topics.admin.TopologyRefused": FAILED,
    "failsoft.topics.embedded.broker.KafkaFailed": FAILED,
    "failsoft.models.catalog.repository.UnknownModel": FAILED,
    "failsoft.models.runtime.session.Unloadable": FAILED,
    "failsoft.workers.commands.error_codes.CommandFailed": FAILED,
    "failsoft.workers.kafka.topic_reader.NoSuchTopic": FAILED,
    "failsoft.workers.operations.event_files.BadRow": FAILED,
    "failsoft.workers.telemetry.http.PortTaken": FAILED,
    # Without its own line, whoever loses a fight over a transactional id would read of a bug.
    "aiokafka.errors.ProducerFenced": FAILED,
    "aiokafka.errors.KafkaError": FAILED,
}
"""By name, so that no command waits for the import of a client or a model runtime that it does not use."""

_SAID = {
    "aiokafka.errors.KafkaConnectionError": "Kafka cannot be reached: ",
    "aiokafka.errors.ProducerFenced": "another process took over (a second replay of this pipeline?): ",
    "aiokafka.errors.KafkaError": "Kafka refused: ",
}


class CommandFailed(Exception):
    """What was asked for could not be done; the message says what to do. Exit code 1."""


class Interrupted(Exception):
    """The user stopped a command that had something to say about how far it came. Exit code 130."""


def code_of(error: BaseException) -> int | None:
    """The exit code of an expected error, by the nearest of its classes in the table; None for a bug."""
    name = _listed(error)
    return None if name is None else CODES[name]


def message(error: BaseException) -> str:
    """What to tell the user: the error's own words, each line of them."""
    name = _listed(error)
    text = str(error) or type(error).__name__
    return _SAID.get(name or "", "") + text


def _listed(error: BaseException) -> str | None:
    names = (f"{c.__module__}.{c.__qualname__}" for c in type(error).__mro__)
    return next((name for name in names if name in CODES), None)


class RootGroup(TyperGroup):
    """The root group: what a command raises ends here. Mistakes in the usage itself are typer's to show (exit 2)."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was asked for."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader had enough (`| head`). What is still buffered goes nowhere, or Python would complain at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise typer.Exit(INTERRUPTED) from None
        except Interrupted as e:
            _say(str(e))
            raise typer.Exit(INTERRUPTED) from None
        except Exception as e:
            code = code_of(e)
            if code is None:
                raise  # a bug, and its traceback is what helps
            if ctx.obj is not None and ctx.obj.debug:
                traceback.print_exc()
            for line in message(e).splitlines():
                _say(line)
            raise typer.Exit(code) from None


def _say(line: str) -> None:
    typer.echo(f"failsoft: {line}", err=True)
