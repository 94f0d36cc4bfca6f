"""How the demo speaks to whoever watches: a live table under its narration on a terminal, plain lines elsewhere."""

from __future__ import annotations

import textwrap
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from failsoft.workers.demo.table import Moment, line, render

EVERY = 5.0
"""Seconds between two progress lines: twenty of them tell the story, and fit on a page."""

WIDTH = 110
"""Columns of the narration where nobody knows how wide the reader's screen is."""


class Narrator(Protocol):
    """What the story needs of its audience."""

    def say(self, text: str) -> None:
        """A sentence or two of narration."""

    def note(self, text: str) -> None:
        """Something that just happened."""

    def update(self, moment: Moment) -> None:
        """How things stand."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def on(console: Console) -> Narrator:
    """The show that ``console`` can take."""
    return LiveNarrator(console) if console.is_terminal and not console.is_dumb_terminal else PlainNarrator(console)


class LiveNarrator:
    """A table that stays at the foot of the terminal; what is said scrolls above it."""

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
    """A line now and then."""

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
        # What has no width is not wrapped again: a progress line stays one line, for whoever reads it with a program.
        self._console.print(Text(text), soft_wrap=True)
