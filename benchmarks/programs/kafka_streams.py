"""Kafka Streams with ONNX Runtime for Java, exactly once: becomes the Java program, so that it is what is measured."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import java


def main() -> None:
    """Replaces this process, under its own id; all arguments are the program's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    given, _ = parser.parse_known_args()
    scratch = Path(tempfile.mkdtemp(prefix="failsoft-streams-", dir=given.model.parent))
    command = [*java.command(scratch), *sys.argv[1:]]
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
