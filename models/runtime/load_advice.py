"""Owns what an error of ONNX Runtime means when it loads a file, and what to do."""

from __future__ import annotations

import re

from failsoft.models.catalog.graph import GraphFacts, one_file

LONGEST_MESSAGE = 300
"""Characters kept of a message: headers hold 500 bytes."""

# What ONNX Runtime writes before its message: its own name and code, and the place in its C++ source.
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_PLACE = re.compile(r"/onnxruntime_src/\S+:\d+ .*?\)(?:::<lambda\(\)>)?(?: const)? (?=\S)")

_IR = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
_OPSET = re.compile(r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)")
_LOCALE = re.compile(r"Failed to construct locale with name:(.*?):locale")
_OPERATOR = re.compile(r"Fatal error: (\S*):(\w+)\(-?\d+\) is not a registered function/op|No Op registered for (\w+)")


def first_line(error: Exception) -> str:
    """The message's first line without the place in ONNX Runtime's source, at most LONGEST_MESSAGE characters."""
    lines = str(error).strip().splitlines()
    return _PLACE.sub("", _CODE.sub("", lines[0]))[:LONGEST_MESSAGE] if lines else "no message"


def advice(error: Exception, facts: GraphFacts, runtime: str) -> str:
    """What a load error means. It compares class names, because some of the classes are not public.

    Args:
        error: what ONNX Runtime raised.
        facts: of the file that it read.
        runtime: ONNX Runtime's version.
    """
    if facts.external:
        return one_file(facts.external)
    text, line = str(error), first_line(error)
    if found := _IR.search(text):
        return (
            f"it was exported for IR version {found[1]} of the ONNX format, and ONNX Runtime {runtime} knows up to "
            f"{found[2]}: set ir_version = {found[2]} and save it again (onnx.load, model.ir_version = {found[2]}, "
            "onnx.save), export with an older onnx package, or install a newer ONNX Runtime"
        )
    if found := _OPSET.search(text):
        return (
            f"made for a newer ONNX Runtime than {runtime}: it has opset {found[1]} of {found[2]}, and the newest that "
            f"is known is {found[3]}: export with a lower target_opset"
        )
    if found := _LOCALE.search(text):
        return (
            f"its operators on text need the locale {found[1]}, which this machine does not have: convert it with the "
            f'locale "C" (skl2onnx: options={{id(vectorizer): {{"locale": "C"}}}}), which lowers ASCII letters only, '
            f"or install the locale (Debian: apt-get install locales, then localedef -i {found[1].partition('.')[0]} "
            f"-f UTF-8 {found[1]})"
        )
    if found := _OPERATOR.search(text):
        domain, name = found[1] or "", found[2] or found[3]
        own = f"{domain}:{name}" if domain else name
        mend = (
            "it belongs to onnxruntime-extensions: export without it, and do that step before the event is published"
            if domain == "ai.onnx.contrib"
            else "export with operators of ONNX (another target_opset may do)"
        )
        return f"ONNX Runtime {runtime} does not have its operator {own}: {mend}"
    match type(error).__name__:
        case "InvalidProtobuf":
            return f"not an ONNX file, or a damaged one: copy it again ({line})"
        case "NotImplemented":
            return f"it uses an operator that ONNX Runtime {runtime} does not have ({line})"
    return f"ONNX Runtime {runtime} cannot load it ({type(error).__name__}: {line})"
