"""``failsoft dead``: dead letters, listed, shown and replayed."""

import typer


def register(root: typer.Typer) -> None:
    pass
