"""docs/permissions.md: the rights that each command needs on a cluster with access control lists."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from docs.markdown import code, page, table
from failsoft.topics.layout import Role, layout
from failsoft.topics.names import Names
from failsoft.topics.rights import NEEDS, Grantee, Need, Own, Use, rights, widened
from failsoft.workers.pipeline_sections import Retry

_NAMES = Names("<name>")
_TOPICS = layout(_NAMES, ["<input topic>"], [("<delay>", 1.0)], 1, 1, schemas=True)
_EXAMPLE = Names("car-loans")


def permissions_page() -> str:
    """docs/permissions.md."""
    return page(
        "# Permissions on a locked-down cluster",
        "",
        *_text(
            "The rights (ACLs) of a pipeline's users on a cluster with an authorizer. A test grants them on a real "
            "broker, takes each away in turn, and checks that the missing one is named. Generated from "
            "`topics/rights.py`. `<name>` is the pipeline's name. Read and Write each include Describe of the same "
            "resource, by Kafka's own rule."
        ),
        "",
        "## A worker",
        "",
        *table(("resource", "name", "operations", "what for", "without it, a worker"), _worker()),
        "",
        *_text(
            "- **No Create.** `failsoft topics apply` creates topics, with another user if you like. A worker, its "
            "control plane included, asks for nothing that the table lacks."
        ),
        *_text(
            "- **No IdempotentWrite** on brokers from 2.8 on: there, Write on any topic is enough for an idempotent "
            "producer. Older brokers ask for IdempotentWrite on the cluster: of `failsoft publish`, of orders "
            '(`breakers open`, `models promote`, …), and of a worker with `guarantee = "at_least_once"`, which has no '
            "transactional id. Transactions never need it."
        ),
        *_text(
            "- **DescribeConfigs may be missing.** A worker then cannot verify retention and compaction. It says so "
            "once, with the topics and the command, and works. `topics apply` refuses instead, and `topics show` exits "
            "with 1: they are there to verify."
        ),
        "",
        "## Other commands",
        "",
        *table(("command", "resource", "name", "operations", "what for"), _commands()),
        "",
        *_text(
            "`topics apply --grow` also needs Alter on each topic that grows. Where `topics apply` changes a setting "
            "of an own topic (the record limit, or whose time its records have), it needs AlterConfigs on it."
        ),
        "",
        "## Ready to run",
        "",
        *_text(
            "`failsoft topics acl` prints the commands for your pipeline file: `--principal` names the user, `--for` "
            "the use, and `--exact` names each topic. In a pipe it prints JSON, as all commands do: "
            "`failsoft topics acl … | jq -r .command`. For a worker of the pipeline "
            f"`{_EXAMPLE.pipeline}`:"
        ),
        "",
        "```sh",
        *_ready(),
        "```",
        "",
        *_text(
            f"The prefix `{_EXAMPLE.pipeline}.` also covers rungs that are added later, and a pipeline whose name "
            f"begins so (`{_EXAMPLE.pipeline}.other`). It gives a worker more than the table: Write on "
            f"`{_EXAMPLE.pipeline}.control`, and on inputs whose names begin so. Only `worker`, `apply` and `show` get "
            "it. The words for `--for`:"
        ),
        "",
        *table(("`--for`", "commands"), ((code(use), ", ".join(map(code, use.commands))) for use in Use)),
        "",
        "## What a missing right looks like",
        "",
        "Each missing right is named with the command that grants it:",
        "",
        "```text",
        Grantee("User:scoring", "kafka-1:9092").refusal(rights(Use.TAIL, _EXAMPLE, layout(_EXAMPLE, [], [], 1, 1))[0]),
        "```",
        "",
        *_text(
            "- A topic without Describe looks as if it did not exist. failsoft asks for it by name, and tells the two "
            "apart."
        ),
        *_text(
            "- A worker asks the brokers for its rights before it joins its group, so it takes no event that it could "
            "not answer. It exits with 1, and a supervisor starts it again with a back-off."
        ),
        *_text(
            "- Without a right of the control plane, events are scored. `failsoft_control_plane_up` is 0 from the "
            "start, and the log names the right. The control plane comes up within half a minute of the grant."
        ),
        *_text(
            "- A right that is taken away from a running worker: without Write, the transaction fails, and the worker "
            "ends and names it; nothing is lost or answered twice. Without Read on a topic, its lanes stop alone and "
            "read on within 15 seconds of the grant ([stopped lanes](stopped-lanes.md)). A right of the control plane "
            "is missed within 30 seconds."
        ),
        *_text(
            "- The broker derives the principal of a client with a certificate or a token. Such a message has "
            "`User:PRINCIPAL` in its place."
        ),
    )


def _text(text: str) -> list[str]:
    return textwrap.wrap(text, 116, subsequent_indent="  " if text.startswith("- ") else "", break_on_hyphens=False)


def _worker() -> Iterator[tuple[str, ...]]:
    for need in NEEDS[Use.WORKER]:
        yield (*_on(need), _operations(need), need.why, need.without)


def _commands() -> Iterator[tuple[str, ...]]:
    for use in Use:
        for need in NEEDS[use] if use is not Use.WORKER else ():
            yield (", ".join(map(code, use.commands)), *_on(need), _operations(need), need.why)


def _on(need: Need) -> tuple[str, str]:
    if isinstance(need.on, tuple):
        return "topic", "all of the pipeline's, its inputs too"
    if isinstance(need.on, Role):
        return "topic", ", ".join(code(t.name) for t in _TOPICS if t.role is need.on)
    if isinstance(need.on, Own):
        prefixed = " (prefixed)" if need.on is Own.WORKER_IDS else ""
        group = need.on in (Own.GROUP, Own.CONTROL_GROUP)
        return ("group" if group else "transactional id"), code(need.on) + prefixed
    return "topic", code(_NAMES.pipeline + need.on)


def _operations(need: Need) -> str:
    return ", ".join(need.operations)


def _ready() -> list[str]:
    topics = layout(_EXAMPLE, ["loan-applications"], Retry().rungs, 1, 1)
    wide = widened(rights(Use.WORKER, _EXAMPLE, topics), _EXAMPLE)
    return Grantee("User:scoring", "kafka-1:9092").commands(wide)
