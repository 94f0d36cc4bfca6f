"""docs/breaker.md: the state diagram, the transitions in words, and how a fleet shares one breaker."""

from __future__ import annotations

from collections.abc import Iterator

from docs.markdown import code, page, table
from failsoft.models.breaker.fleet import ALONE_MS
from failsoft.models.breaker.local import ALONE_AFTER, ASKS, EVERY, FIRST
from failsoft.models.breaker.policy import LEAST_LEASE
from failsoft.models.breaker.rules import TRANSITIONS, BreakerEvent, BreakerState
from failsoft.schemas.fleet.breaker import Action
from failsoft.workers.fleet.control_plane import SESSION
from failsoft.workers.fleet.sync import GIVEN_UP_AFTER

_STATES = {
    BreakerState.CLOSED: "All calls are made and counted. It opens when a rate over the window reaches its threshold.",
    BreakerState.OPEN: "No call is made until the wait is over; the fallback answers, and the ladder holds.",
    BreakerState.HALF_OPEN: "As many calls as there are probes are made; they decide.",
    BreakerState.FORCED_OPEN: "An operator opened it: no call is made, whatever the time.",
    BreakerState.DISABLED: "An operator switched it off: all calls are made and counted, and it never opens.",
}
_EVENTS = {
    BreakerEvent.TRIPPED: "Of at least `minimum_calls` in the last `window`, `failure_rate` failed or `slow_rate` "
    "were slower than `slow_call`.",
    BreakerEvent.WAITED: "`open_for` has passed: doubled at each reopening, ±20 % by chance, at most `max_open`.",
    BreakerEvent.PROBE_FAILED: "One probe failed, or `slow_rate` of the probes were slow.",
    BreakerEvent.PROBES_PASSED: "`probes` calls came back well; the doubling is forgotten.",
    BreakerEvent.PROBES_LOST: "A probe was not heard of for the length of its lease; the probes are lent anew.",
    BreakerEvent.FORCE_OPEN: "A person keeps it open, until another order.",
    BreakerEvent.DISABLE: "It counts, and never opens.",
    BreakerEvent.CLOSE: "It admits and judges again, from an empty window.",
    BreakerEvent.RESET: "As new; a closed one forgets its counts.",
}

_FLEET = f"""\
## The fleet

The workers of a pipeline share a breaker: one of them, the **owner**, folds what all report into a **row**, and all
obey the row. Each also has a breaker of its own, its **home**, which opens at once and needs nobody.

```mermaid
flowchart LR
    H1[worker: home] -- "counts, trips, results of probes" --> O[(outcomes)]
    H2[worker: home] -- "counts, trips, results of probes" --> O
    P[operator] -- "failsoft breakers open, close, …" --> C[(control)]
    C --> W
    O --> W{{{{owner: folds}}}}
    W --> R[(the row)]
    W --> A[(alerts)]
    R -- obeyed --> H1
    R -- obeyed --> H2
```

| who | decides |
|---|---|
| home | While the row is `closed`: whether this worker asks the model. It opens by itself, and then probes by itself. |
| owner | The row: when the fleet opens, who may probe, when it closes; and which worker is sick. |
| row | Any state but `closed` is obeyed by every worker as it stands: nobody leaves it by himself. |
| operator | What the row is to be, by an order to the owner. |

The owner is the one worker to which Kafka's group gives the only partition of `<name>.outcomes`. The row is a value
of the Faust table `breakers`; its changelog is the topic `<name>-breakers-changelog`. Transitions and sick nodes are
events on `<name>.alerts`.

**Reports.** A worker reports its window's totals every {EVERY * 1000:.0f} ms when they change, and its own trip and
the results of probes at once. Totals: a report that is lost or comes twice does no harm.

**Quorum.** The fleet opens when the sum of the windows is over a threshold, by the same rule as one window, and it
is not one worker's doing: two workers fail by themselves (they opened at home, or a quarter of `minimum_calls` shows
a rate over the threshold); or one does that is at least half of those that reported, and has for {ALONE_MS / 1000:g}
s; or the others together fail as well. A worker that opened at home makes no calls: its part in the sum stays what it
was, until it leaves the window.

**Sick node.** A worker that fails alone opens at home only, answers from the fallback, and is called sick after
{ALONE_MS / 1000:g} s: an alert `node_sick`, and `failsoft_node_sick` 1 at that worker. The others go on asking the
model. It is well again when its rates are under the thresholds.

**Generation.** Every transition of the row gives it the next number, and so does each new lease. Reports made under
another are dropped: a late result of an older state changes nothing.

**Lease.** When an open row's time is over, workers with something to probe with ask for probes. The owner lends up
to `probes` to the first that asks, for the card's `blame` and `deadline` and at least {LEAST_LEASE:g} s. One that fails
reopens the row, for longer; all passed close it. When the prober dies, the lease ends by itself, and whoever asks
next is lent the rest.

**The ladder.** Retries wait while the row is open; none burns an attempt on a model that is known to be down.
Waiting retries are the first to probe with, live events in every second spell: each for {FIRST:g} s, then whoever
comes. A retry that failed as a probe stays where it was, with the attempts it had. Those of the first rungs are asked
first; in a spell of live events, when none came, any of them, wherever it stands: what no model can answer stays at the
head of its rung, and would keep a sound model out. An answer from there is not given before its turn. Where live events
have ended and **nothing but** what no model can answer is left to ask about, it waits, answered provisionally, for the
next live event, or for `failsoft breakers reset`.

**Without the control plane** events are scored as before.

- The owner dies: another worker takes over after {SESSION:g} s, and goes on from the row. Until then the row stands.
- Kafka or Faust do not give the table: workers go by their homes (`failsoft_control_plane_up` 0), and report
  nothing. After a start the ladder waits {GIVEN_UP_AFTER:g} s for the table, then it goes by the home as well.
- The row is not `closed`, and nobody answers: a worker that has asked for probes {ASKS} times, over {ALONE_AFTER:g}
  s, goes on with its home, probing by itself, until the row moves.

## Orders

`failsoft breakers` lists the rows, and who owns them. `MODEL` is a model (each of its versions) or `model@version`;
`--why` goes into the reason and the alert. An order is obeyed once; one that is not in the table above changes nothing.
"""


def breaker_page() -> str:
    """docs/breaker.md."""
    return page(
        "# The circuit breaker",
        "",
        "Each model version has one. `TRANSITIONS` in `models/breaker/breaker.py` is what the code runs, and",
        "what this page is drawn from. Every transition begins a new generation and empties the window; results of",
        "calls that were admitted under an older generation are dropped.",
        "",
        "```mermaid",
        *_diagram(),
        "```",
        "",
        *table(("state", "what it does"), ((code(state), _STATES[state]) for state in BreakerState)),
        "",
        *table(
            ("from", "when", "to"),
            ((code(from_), event, code(to)) for from_, row in TRANSITIONS.items() for event, to in row.items()),
        ),
        "",
        *table(("event", "which means"), ((event, _EVENTS[event]) for event in BreakerEvent)),
        "",
        _FLEET,
        *table(("order", "from", "to"), map(_order, Action)),
    )


def _diagram() -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    [*] --> {BreakerState.CLOSED}"
    for from_, row in TRANSITIONS.items():
        for event, to in row.items():
            yield f"    {from_} --> {to}: {event.replace(': ', ' says ')}"


def _order(action: Action) -> tuple[str, str, str]:
    event = BreakerEvent[action.name]
    moves = {from_: row[event] for from_, row in TRANSITIONS.items() if event in row}
    (to,) = {*moves.values()}
    return code(f"failsoft breakers {action.command} MODEL"), ", ".join(map(code, moves)), code(to)
