"""docs/breaker.md: the state diagram, the transitions in words, and how a fleet shares one breaker."""

from __future__ import annotations

from collections.abc import Iterator

from docs.markdown import code, page, table
from failsoft.models.breaker.fleet import LONE_FAILURE_MS
from failsoft.models.breaker.local import AUTONOMOUS_AFTER, MAX_REQUESTS, REPORT_EVERY, RESERVED_FOR
from failsoft.models.breaker.policy import LEAST_LEASE
from failsoft.models.breaker.rules import TRANSITIONS, BreakerEvent, BreakerState
from failsoft.schemas.fleet.breaker import Action
from failsoft.workers.client_timeouts import ClientTimeouts
from failsoft.workers.fleet.sync import TABLE_WITHIN

SESSION = ClientTimeouts().session

_STATES = {
    BreakerState.CLOSED: "All calls are made and counted. It opens when a rate over the window reaches its threshold.",
    BreakerState.OPEN: "No call is made until the wait is over. The fallback answers, and the ladder waits.",
    BreakerState.HALF_OPEN: "Only `probes` calls are made. Their results open or close it.",
    BreakerState.FORCED_OPEN: "An operator opened it. No call is made until another order.",
    BreakerState.DISABLED: "An operator switched it off. All calls are made and counted, and it never opens.",
}
_EVENTS = {
    BreakerEvent.TRIPPED: "The last `window` has at least `minimum_calls`, and `failure_rate` of them failed or "
    "`slow_rate` were slower than `slow_call`.",
    BreakerEvent.WAITED: "`open_for` has passed. It doubles at each reopening, with ±20 % jitter, up to `max_open`.",
    BreakerEvent.PROBE_FAILED: "One probe failed, or `slow_rate` of the probes were slow.",
    BreakerEvent.PROBES_PASSED: "`probes` calls succeeded. The next wait is `open_for` again.",
    BreakerEvent.PROBES_LOST: "A probe gave no result before its lease ended. The probes are granted again.",
    BreakerEvent.FORCE_OPEN: "An operator keeps it open until another order.",
    BreakerEvent.DISABLE: "It counts calls and never opens.",
    BreakerEvent.CLOSE: "It admits calls and judges them again, from an empty window.",
    BreakerEvent.RESET: "It starts as new. A closed breaker drops its counts.",
}

_FLEET = f"""\
## The fleet

The workers of a pipeline share one breaker for each model version. One worker, the **owner**, folds the reports of all
workers into a **row**, and all workers follow the row. Each worker also has a **local breaker**. It opens at once,
without the owner.

```mermaid
flowchart LR
    H1[worker: local breaker] -- "counts, trips, results of probes" --> O[(outcomes)]
    H2[worker: local breaker] -- "counts, trips, results of probes" --> O
    P[operator] -- "failsoft breakers open, close, …" --> C[(control)]
    C --> W
    O --> W{{{{owner: folds}}}}
    W --> R[(row)]
    W --> A[(alerts)]
    R -- followed by --> H1
    R -- followed by --> H2
```

| part | what it decides |
|---|---|
| local breaker | While the row is `closed`: whether this worker calls the model. It opens and probes by itself. |
| owner | The row: when the fleet's breaker opens, which worker may probe, when it closes. Also which worker is sick. |
| row | Every worker follows a row that is not `closed`. No worker leaves such a state by itself. |
| operator | The state of the row, by an order to the owner. |

Kafka's consumer group assigns the only partition of `<name>.outcomes` to one worker: this worker is the owner. The row
is a value of the Faust table `breakers`, whose changelog is the topic `<name>-breakers-changelog`. The owner writes
transitions and sick nodes to `<name>.alerts` as events.

**Reports.** A worker reports the totals of its window every {REPORT_EVERY * 1000:.0f} ms when they change. It
reports a trip of its local breaker and the results of probes at once. Reports carry totals, so a lost or
repeated report does no harm.

**Quorum.** The fleet's breaker opens when two conditions hold. First, the sum of all windows is over a threshold, by
the rule that applies to one window. Second, the failures are not those of a single worker. One of these shows it:

- Two workers fail by themselves: their local breakers are open, or a quarter of `minimum_calls` has a rate over the
  threshold.
- One worker fails by itself, has done so for {LONE_FAILURE_MS / 1000:g} s, and is at least half of the workers
  that reported.
- The sum of the other workers is over a threshold too, for which a quarter of `minimum_calls` is enough. The worker
  that is left out is the one that fails by itself, or the one with the most failures and slow runs.

A worker whose local breaker is open makes no calls. Its last counts stay in the sum until they leave the window.

**Sick node.** When one worker fails and the others do not, only its local breaker opens, and this worker answers from
the fallback. After {LONE_FAILURE_MS / 1000:g} s the owner reports it as sick: an alert `node_sick`, and
`failsoft_node_sick` is 1 at that worker. The other workers go on calling the model. The worker is well again when its
rates are under the thresholds.

**Generation.** Each transition of the row and each new lease increments the row's generation. The owner drops reports
of another generation, so a late result of an older state changes nothing.

**Lease.** When the wait of an open row is over, workers that have something to probe with ask for probes. The owner
grants up to `probes` to the first worker that asks. The lease lasts for the card's `blame` plus `deadline`, and at
least {LEAST_LEASE:g} s. One failed probe reopens the row, for longer. When all probes passed, the row closes. When the
prober dies, its lease ends at its time, and the next worker that asks gets the remaining probes.

**The ladder.** Retries wait while the row is open, so no attempt is spent on a model that is known to be down. In
the first {RESERVED_FOR:g} s of a half-open period only waiting retries probe, which spares live events. In every
second period it is the reverse: only live events probe. After this time any call may be a probe.

- A retry that fails as a probe stays on its rung and keeps its number of attempts. A crash is counted and written.
- Retries of the first rungs probe first. In the periods of live events, when no live event came, the probes are drawn
  from all waiting retries, wherever they stand on their rung. Otherwise records that no model can answer, which stay
  at the head of their rung, would keep the breaker open although the model is sound.
- When a retry probes while a retry ahead of it on its rung waits, its answer is dropped. It is answered at its turn.
- When live events have ended and the waiting retries are **only** records that no model can answer, they keep their
  provisional answers. They wait for the next live event, or for `failsoft breakers reset`.

**Without the control plane** events are scored as before.

- The owner dies: another worker takes over after {SESSION:g} s and continues from the row. Until then the row stays
  as it is.
- Kafka or Faust does not provide the table: workers follow their local breakers and send no reports, and
  `failsoft_control_plane_up` is 0. After a start the ladder waits {TABLE_WITHIN:g} s for the table. Then it follows
  the local breaker too.
- The row is not `closed` and the owner does not answer: a worker that has asked for probes {MAX_REQUESTS} times, over
  {AUTONOMOUS_AFTER:g} s, becomes autonomous. It follows its local breaker and probes by itself until the row changes.

## Orders

`failsoft breakers` lists the rows and the worker that owns them. `MODEL` is a model, which means each of its versions,
or `model@version`. `--why` is written to the reason and the alert. An order is carried out once. An order that is not
in the table of transitions changes nothing.
"""


def breaker_page() -> str:
    """docs/breaker.md."""
    return page(
        "# The circuit breaker",
        "",
        "Each model version has a circuit breaker. The code runs the table `TRANSITIONS` in `models/breaker/rules.py`,",
        "and this page is generated from it. Every transition starts a new generation and empties the window. Results",
        "of calls that were admitted under an older generation are dropped.",
        "",
        "```mermaid",
        *_diagram(),
        "```",
        "",
        *table(("state", "meaning"), ((code(state), _STATES[state]) for state in BreakerState)),
        "",
        *table(
            ("from", "when", "to"),
            ((code(from_), event, code(to)) for from_, row in TRANSITIONS.items() for event, to in row.items()),
        ),
        "",
        *table(("event", "meaning"), ((event, _EVENTS[event]) for event in BreakerEvent)),
        "",
        _FLEET,
        *table(("order", "from", "to"), map(_order, Action)),
    )


def _diagram() -> Iterator[str]:
    yield "stateDiagram-v2"
    yield f"    [*] --> {BreakerState.CLOSED}"
    for from_, row in TRANSITIONS.items():
        for event, to in row.items():
            yield f"    {from_} --> {to}: {event.replace(': ', ' orders ')}"


def _order(action: Action) -> tuple[str, str, str]:
    event = BreakerEvent[action.name]
    moves = {from_: row[event] for from_, row in TRANSITIONS.items() if event in row}
    (to,) = {*moves.values()}
    return code(f"failsoft breakers {action.command} MODEL"), ", ".join(map(code, moves)), code(to)
