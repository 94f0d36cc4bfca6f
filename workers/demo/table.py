"""The demo's display at one moment: a table for a terminal, a line for any other output. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from failsoft.schemas.model_version import ModelVersion
from failsoft.workers.demo.tally import RungTally

STYLES = {"closed": "green", "half_open": "yellow", "open": "bold red"}


@dataclass(frozen=True, slots=True)
class Standing:
    """One model version's breaker.

    Attributes:
        workers: its state at each worker.
        opened: how often it opened at each worker.
        fleet: the state in the fleet's row.
        generation: the generation of the fleet's row.
        fleet_opened: how often the fleet's row opened.
    """

    workers: Mapping[str, str]
    opened: Mapping[str, int]
    fleet: str
    generation: int
    fleet_opened: int


@dataclass(frozen=True, slots=True)
class Moment:
    """Counts and states at one moment.

    Attributes:
        chapter: the title of the current chapter.
        elapsed: seconds since the start.
        published: events acknowledged.
        rate: first answers a second.
        answers: first answers by source.
        provisional: provisional first answers.
        corrected: provisional answers corrected since.
        confirmed: provisional answers confirmed since.
        imputed: first answers with imputed features.
        primary: the primary's active version as model@version.
        serving: the version that each worker serves; None before it reports one.
        breakers: the breakers by model@version.
        rungs: waiting retries by delay.
        dead: dead letters by kind; those of replays are left out.
        replayed: dead letters replayed.
        corrected_by_replay: replays that got an answer of the primary.
        dead_again: replays that became dead letters again.
        now_ms: the wall clock (epoch ms).
    """

    chapter: str
    elapsed: float
    published: int
    rate: float
    answers: Mapping[str, int]
    provisional: int
    corrected: int
    confirmed: int
    imputed: int
    primary: str
    serving: Mapping[str, int | None]
    breakers: Mapping[str, Standing]
    rungs: Mapping[str, RungTally]
    dead: Mapping[str, int]
    replayed: int
    corrected_by_replay: int
    dead_again: int
    now_ms: float


def line(m: Moment) -> str:
    """The moment as one line of text."""
    answers = ", ".join(f"{source} {n:,}" for source, n in m.answers.items()) or "none yet"
    breakers = "; ".join(f"{key} {_side_by_side(b)}" for key, b in m.breakers.items())
    rungs = ", ".join(f"{delay} {rung.waiting:,}" for delay, rung in m.rungs.items())
    dead = ", ".join(f"{kind} {n:,}" for kind, n in m.dead.items()) or "none"
    parts = [
        f"published {m.published:,}",
        f"answers: {answers} ({m.rate:,.0f}/s)",
        f"provisional {m.provisional:,} = corrected {m.corrected:,} + confirmed {m.confirmed:,} + waiting",
        f"versions: {_versions(m)}",
        f"breakers: {breakers}",
        f"ladder: {rungs}",
        f"dead: {dead}",
    ]
    return " | ".join(parts)


def _versions(m: Moment) -> str:
    return ", ".join(f"{worker} {_version(v)}" for worker, v in m.serving.items()) + f", fleet {m.primary}"


def _version(version: int | None) -> str:
    return "none yet" if version is None else str(version)


def _side_by_side(b: Standing) -> str:
    workers = ", ".join(f"{worker} {state}" for worker, state in b.workers.items())
    times = f"; opened {sum(b.opened.values())} times by workers, {b.fleet_opened} by the fleet"
    return f"{workers}, fleet {b.fleet} (generation {b.generation}{times if b.fleet_opened else ''})"


def render(m: Moment) -> RenderableType:
    """The moment as the live table."""
    title = Text.assemble((m.chapter, "bold"), f"   {m.elapsed:.0f} s   {m.published:,} published")
    return Panel(
        Group(Columns([_answers(m), Group(_ladder(m), _dead(m))], padding=(0, 3)), _breakers(m)),
        title=title,
        title_align="left",
    )


def _answers(m: Moment) -> Table:
    table = _table("first answers", "source", "count")
    for source, n in m.answers.items():
        table.add_row(source, f"{n:,}")
    table.add_row(Text("per second", style="dim"), Text(f"{m.rate:,.0f}", style="dim"))
    table.add_row("provisional", f"{m.provisional:,}")
    table.add_row("  corrected since", Text(f"{m.corrected:,}", style="green"))
    table.add_row("  confirmed since", f"{m.confirmed:,}")
    table.add_row("with imputed features", f"{m.imputed:,}")
    return table


def _ladder(m: Moment) -> Table:
    table = _table("retry ladder", "rung", "waiting", "next due")
    for delay, rung in m.rungs.items():
        table.add_row(delay, f"{rung.waiting:,}", _due(rung, m))
    return table


def _due(rung: RungTally, m: Moment) -> Text:
    if rung.next_due_ms is None:
        return Text("")
    left = (rung.next_due_ms - m.now_ms) / 1000
    if left > 0:
        return Text(f"in {left:.0f} s")
    primary = m.breakers.get(m.primary)
    allowed = primary is None or primary.fleet == "closed"
    return Text("now") if allowed else Text("when the breaker allows", style="yellow")


def _dead(m: Moment) -> Table:
    table = _table("dead letters", "kind", "count")
    for kind, n in m.dead.items():
        table.add_row(kind, f"{n:,}")
    if m.replayed:
        table.add_row("replayed", f"{m.replayed:,}")
        table.add_row("  corrected", Text(f"{m.corrected_by_replay:,}", style="green"))
        table.add_row("  dead again", f"{m.dead_again:,}")
    return table


def _breakers(m: Moment) -> Table:
    """One line for each breaker, below the versions served: workers and fleet side by side."""
    workers = list(next((b.workers for b in m.breakers.values()), {}))
    table = _table("breakers", "model", *workers, "fleet", "generation")
    active = str(ModelVersion.of_key(m.primary).version)
    served = [_version(m.serving.get(worker)) for worker in workers]
    table.add_row("version served", *(Text(v, style="" if v == active else "yellow") for v in served), active)
    for key, b in m.breakers.items():
        states = [*(b.workers.get(worker, "") for worker in workers), b.fleet]
        table.add_row(key, *(Text(state, style=STYLES.get(state, "")) for state in states), str(b.generation))
        if b.fleet_opened:
            opened = [*(b.opened.get(worker, 0) for worker in workers), b.fleet_opened]
            table.add_row("  times opened", *map(str, opened))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, min_width=34)
    for i, column in enumerate(columns):
        number = column in ("count", "waiting", "generation")
        table.add_column(column, style="cyan" if i else "", header_style="dim", justify="right" if number else "left")
    return table
