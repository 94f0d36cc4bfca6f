"""Owns the messages about memory: recognises an out-of-memory error, and words the advice."""

from __future__ import annotations


def out_of_memory(text: str) -> bool:
    """True if the text is an out-of-memory error of ONNX Runtime, C++, Python or libc."""
    return any(sign in text for sign in ("MemoryError", "bad_alloc", "bad allocation", "llocate memory"))


def over_memory(memory: str) -> str:
    """The message for a version that needs more than ``memory``, which is the limit in words."""
    return (
        f"it needs more than {memory} beyond the runtime's own memory: constants unfold when it is loaded, or a "
        "tensor's size grows with an input value; export it without these, or raise the vetting's memory limit"
    )
