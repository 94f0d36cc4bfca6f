"""What a process says when it has no memory left."""

from __future__ import annotations


def out_of_memory(said: str) -> bool:
    """Is this what ONNX Runtime, C++, Python or libc say when memory is refused?"""
    return any(sign in said for sign in ("MemoryError", "bad_alloc", "bad allocation", "llocate memory"))


def over_memory(memory: str) -> str:
    """What to tell of it."""
    return (
        f"it needs more than {memory} beside the runtime: constants that unfold when it is loaded, or a tensor whose "
        "size grows with a value; export it without, or raise the vetting's memory limit"
    )
