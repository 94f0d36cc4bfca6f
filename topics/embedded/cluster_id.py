"""The id of a cluster: a new one, and the one that a data directory is formatted with."""

from __future__ import annotations

import base64
import uuid
from pathlib import Path


def new_id() -> str:
    """A new cluster id in Kafka's format: a UUID in URL-safe base64."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if not text.startswith("-"):  # it would be parsed as an option
            return text


def formatted_id(data: Path) -> str:
    """The id in a broker's data directory. Raises OSError if it is not formatted."""
    lines = (data / "logs" / "meta.properties").read_text().splitlines()
    return dict(line.partition("=")[::2] for line in lines)["cluster.id"]
