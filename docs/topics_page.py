"""docs/reference/topics.md: the topics that a pipeline reads and owns, and the configuration that they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from docs.markdown import code, page, table
from failsoft.schemas.publish import asyncapi
from failsoft.topics.layout import DAY_MS, DEAD_LEAST_MS, HEADROOM, RETRY_LEAST_MS, Role, Topic, layout
from failsoft.topics.names import Names
from failsoft.workers.pipeline_sections import Retry

NAMES = Names("<name>")
_P = 7  # stands for P: no topic has a fixed count of 7
_BYTES = 1_000_000


def topics() -> list[Topic]:
    """A pipeline's topics, with the default delays."""
    return layout(NAMES, ["<input topic>"], Retry().rungs, _P, _BYTES, schemas=True)


def meaning(topic: Topic) -> str:
    """The purpose of the topic, as in the AsyncAPI document; "" if the document lacks the topic."""
    for channel in asyncapi()["channels"].values():
        address = channel["address"].replace("{pipeline}", NAMES.pipeline).replace("{topic}", "<input topic>")
        if topic.name == address.replace("{delay}", NAMES.delay_of(topic.name) or ""):
            return str(channel["description"])
    return ""


def topics_page() -> str:
    """docs/reference/topics.md."""
    return page(
        "# Topics",
        "",
        "`<name>` is the pipeline's name. P is the number of partitions of its input topics. `failsoft topics apply`",
        "creates the topics that are missing. This command and each worker verify the topics that exist. Generated",
        "from `topics/layout.py` and `schemas/publish.py`.",
        "",
        *table(("topic", "partitions", "retention", "purpose"), _rows()),
        "",
        "The rungs above are those of the default `retry.delays`. All records of an event have the partition that the",
        "event has on its input topic.",
        "",
        "## Configuration",
        "",
        "`failsoft topics apply` creates topics with this configuration. An input topic gets the broker's defaults.",
        "",
        *table(("topic", "configuration"), ((code(t.name), _configs(t)) for t in topics() if t.configs)),
        "",
        f"`max.message.bytes` is that of the input topics, here {_BYTES:,}, plus {HEADROOM:,} for the headers that",
        "failsoft adds.",
        "",
        "## Requirements for an existing topic",
        "",
        "When an existing topic breaks one of these rules, a worker does not start and `failsoft topics apply` changes",
        "nothing:",
        "",
        "- the partitions above; all input topics have the same number;",
        "- `cleanup.policy` as above, since compaction drops records that were not read yet;",
        "- no `retention.bytes` on retries, dead letters and replays;",
        f"- `retention.ms` of at least the delay plus {_days(RETRY_LEAST_MS)} on a rung, at least "
        f"{_days(DEAD_LEAST_MS)} on dead letters,",
        "  and on replays as long as on dead letters;",
        "- `max.message.bytes` of at least the value above.",
        "",
        "## Groups and transactional ids",
        "",
        "Access control lists must also allow these names.",
        "",
        *table(
            ("what", "name"),
            (
                ("Consumer group of the workers", code(NAMES.group)),
                ("Consumer group of the control plane", code(NAMES.control_group)),
                ("Transactional id of a worker", code(NAMES.transactional_id("<worker id>"))),
                ("Transactional id of `failsoft dead replay`", code(NAMES.replayer_id)),
                ("Transactional id of orders of `failsoft offsets`", code(NAMES.operator_id)),
            ),
        ),
    )


def _rows() -> Iterator[Sequence[str]]:
    for topic in topics():
        partitions = "P" if topic.partitions == _P else str(topic.partitions)
        yield code(topic.name), partitions, _retention(topic), meaning(topic)


def _retention(topic: Topic) -> str:
    if topic.role is Role.INPUT:
        return "yours"
    if topic.configs["cleanup.policy"] == "compact":
        return "compacted"
    return _days(int(topic.configs["retention.ms"]) - round(1000 * topic.delay)) + (
        " and its delay" if topic.delay else ""
    )


def _configs(topic: Topic) -> str:
    return ", ".join(code(f"{name}={value}") for name, value in topic.configs.items())


def _days(ms: int) -> str:
    return f"{ms / DAY_MS:g} day{'' if ms == DAY_MS else 's'}"
