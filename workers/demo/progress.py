"""The demo's output: on a terminal a live table below the narration, elsewhere plain lines."""

from __future__ import annotations

import textwrap
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from failsoft.workers.demo.table import Moment, line, render

EVERY = 5.0
"""Seconds between two progress lines: a run has about twenty, which fit on a page."""

WIDTH = 110
"""Columns of the narration when the output is not a terminal, and the reader's screen width is unknown."""


class Narrator(Protocol):
    """The output that the scenario needs."""

    def say(self, text: str) -> None:
        """Prints narration: a few sentences."""

    def note(self, text: str) -> None:
        """Prints something that just happened."""

    def update(self, moment: Moment) -> None:
        """Shows the current counts and states."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def on(console: Console) -> Narrator:
    """The live narrator for a terminal, else the plain one."""
    return LiveNarrator(console) if console.is_terminal and not console.is_dumb_terminal else PlainNarrator(console)


class LiveNarrator:
    """Keeps a table at the bottom of the terminal; narration scrolls above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def say(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text))

    def note(self, text: str) -> None:
        self._console.print(Text(f"  {text}", style="yellow"))

    def update(self, moment: Moment) -> None:
        self._live.update(render(moment), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


class PlainNarrator:
    """Prints narration, and a progress line every ``EVERY`` seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said_at = 0.0

    def say(self, text: str) -> None:
        self._print(textwrap.fill(text, WIDTH))

    def note(self, text: str) -> None:
        self._print(f"  {text}")

    def update(self, moment: Moment) -> None:
        if moment.elapsed - self._said_at >= EVERY:
            self._said_at = moment.elapsed
            self._print(f"[{moment.elapsed:3.0f} s] {line(moment)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def _print(self, text: str) -> None:
        # Not wrapped again: a progress line must stay one line for programs that read it.
        self._console.print(Text(text), soft_wrap=True)
