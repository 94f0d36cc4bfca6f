"""The schemas that this worker knows, and those of them that the pipeline's topic of schemas does not have yet."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from failsoft.schemas.formats.registered import Registered, SchemaRef

log = structlog.get_logger("failsoft.schemas")


class SchemaMemory:
    """Schemas by what events name them by. A schema never changes, so the first one of a ref stays.

    Attributes:
        news: set while there are schemas to write.
    """

    def __init__(self) -> None:
        self._known: dict[SchemaRef, Registered] = {}
        self._unwritten: dict[SchemaRef, Registered] = {}
        self.news = asyncio.Event()

    def get(self, ref: SchemaRef) -> Registered | None:
        """The schema of ``ref``; None if it is not known."""
        return self._known.get(ref)

    def keep(self, registered: Registered) -> None:
        """Remember what the registry gave. It is written to the topic of schemas soon; this never waits."""
        if registered.ref not in self._known:
            self._known[registered.ref] = self._unwritten[registered.ref] = registered
            self.news.set()

    @property
    def unwritten(self) -> Mapping[SchemaRef, Registered]:
        """What the topic of schemas may not have yet."""
        return self._unwritten

    def written(self, ref: SchemaRef) -> None:
        """The topic of schemas has ``ref``, or will never have it."""
        self._unwritten.pop(ref, None)
        if not self._unwritten:
            self.news.clear()

    def absorb(self, registered: Registered) -> None:
        """Remember what the topic of schemas has. Another schema than the one that is known is logged, and not used."""
        known = self._known.setdefault(registered.ref, registered)
        if known == registered:
            self.written(registered.ref)
        else:
            log.error(
                "the topic of schemas has another schema of an id than this worker; the first one that it met stays",
                schema=registered.ref,
            )

    def forget(self, ref: SchemaRef) -> None:
        """The topic of schemas has ``ref`` no more: an operator deleted it. The registry is asked for it again."""
        self._known.pop(ref, None)
        self.written(ref)
