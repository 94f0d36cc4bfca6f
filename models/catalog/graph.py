"""What an ONNX file says of itself: a bounded reader of its protobuf that skips the weights and copies none of them.

The ``onnx`` package would take 20 MB of memory and copy the weights. ONNX Runtime decides whether a file is a model;
nothing here raises for one that is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_NESTED = 100
"""Deepest message, as in protobuf's own parser: without a bound a file of 1 kB could nest 500 deep."""

MOST_NODES = 200_000
"""Nodes whose connections are kept to find the labels; larger graphs have none. The largest language models have
about 50,000 nodes, and a file of 2 MB could hold a million empty ones."""

MOST_FIELDS = 3_000_000
"""Fields that are read, a run of equal ones counted once: a few seconds. The largest language models have a million; a
file of 10 MB could hold five million empty ones."""

MOST_LABELS = 100_000
LONGEST_TEXT = 1_000_000
"""Bytes read of one text, such as feature names in the metadata."""

DEFAULT_LOCALE = "en_US.UTF-8"
"""What ONNX Runtime's StringNormalizer takes where the node names no locale."""

Label = int | str


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """What an ONNX file says of itself.

    Attributes:
        ir_version: version of the file format, 0 if it is not given.
        producer, producer_version: the program that wrote it.
        opsets: the version of each domain's operators; ai.onnx is "".
        doc: its description.
        metadata: its own keys and values.
        labels: a classifier's labels in the order of its columns; None if it has none that can be read.
        ops: the operators in use, subgraphs and functions included.
        locales: the locales that its string operators want.
        external: the location of each tensor that is stored in another file.
        damaged: why the file could not be read to its end; "" if it could.
    """

    ir_version: int = 0
    producer: str = ""
    producer_version: str = ""
    opsets: Mapping[str, int] = field(default_factory=dict)
    doc: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[Label, ...] | None = None
    ops: frozenset[str] = frozenset()
    locales: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    damaged: str = ""


def facts(content: bytes) -> GraphFacts:
    """Reads a model's bytes in linear time. Never raises: ``damaged`` says what is wrong, after what could be read."""
    reader = _GraphReader(content)
    damaged = ""
    try:
        reader.model()
    except _Damaged as error:
        damaged = str(error)
    return reader.facts(damaged)


def one_file(external: Sequence[str]) -> str:
    """What to do with a model whose weights are in the files ``external``: a version is a single file."""
    names = ", ".join(repr(name[:80]) for name in external[:3])
    more = f" and {len(external) - 3} more" if len(external) > 3 else ""
    message = f"it stores weights in other files ({names}{more}), and a version is a single file"
    mend = "save it as one file: onnx.save(onnx.load(path), path, save_as_external_data=False)"
    outside = next((name for name in external if name.startswith("/") or ".." in name.split("/")), None)
    if outside is not None:
        mend = f"{outside[:80]!r} is outside the model's own folder: export again into one folder, then {mend}"
    return f"{message}: {mend}"


class _Damaged(Exception):
    """The bytes are not protobuf."""


class _Node(NamedTuple):
    op: str
    inputs: list[str]
    outputs: list[str]
    labels: tuple[Label, ...] | None


# A field's tag is its number times 8, plus 2 for bytes and messages, or 0 for a varint. Names are those of onnx.proto.
_IR, _GRAPH, _OPSET, _METADATA, _TRAINING, _FUNCTION = 0x08, 0x3A, 0x42, 0x72, 0xA2, 0xCA
_TEXTS_OF_MODEL = {0x12: "producer", 0x1A: "producer_version", 0x32: "doc"}
_FUNCTION_NODE, _FUNCTION_ATTRIBUTE = 0x3A, 0x5A
_NODE, _INITIALIZER, _OUTPUT, _SPARSE = 0x0A, 0x2A, 0x62, 0x7A
_NODE_INPUT, _NODE_OUTPUT, _OP, _ATTRIBUTE = 0x0A, 0x12, 0x22, 0x2A
_NAME, _STRING, _TENSOR, _SUBGRAPH, _INTS, _INTS_PACKED, _STRINGS = 0x0A, 0x22, 0x2A, 0x32, 0x40, 0x42, 0x4A
_TENSORS, _SUBGRAPHS, _SPARSE_TENSOR, _SPARSE_TENSORS = 0x52, 0x5A, 0xB2, 0xBA
_TYPE, _INT32S, _INT32S_PACKED, _TEXTS, _INT64S, _INT64S_PACKED = 0x10, 0x28, 0x2A, 0x32, 0x38, 0x3A
_TENSOR_NAME, _RAW, _ELSEWHERE, _LOCATION = 0x42, 0x4A, 0x6A, 0x70

# An attribute of a tree ensemble repeats these fields a million times, without packing them: floats, ints and short
# strings. A run of them is skipped at once.
_SHORT = b"|".join(rb"\x%02x.{%d}" % (n, n) for n in range(32))
_RUNS = {
    0x3D: re.compile(rb"(?:\x3d.{4})*+", re.DOTALL),
    0x40: re.compile(rb"(?:\x40[\x80-\xff]{0,9}[\x00-\x7f])*+"),
    0x4A: re.compile(rb"(?:\x4a(?:%b))*+" % _SHORT, re.DOTALL),
}

_LABELS = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
_CLASSIFIERS = ("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier")
# Operators that keep the order of columns, and those of them that also keep each value.
_SAME = ("Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
_ORDERED = (*_SAME, "Normalizer", "Softmax", "Sigmoid", "Mul", "Div", "Clip")

_INTEGERS = {2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 12: 4}
"""TensorProto.DataType of integers, to the bytes of one."""
_SIGNED = (3, 5, 6, 7)


class _GraphReader:
    def __init__(self, content: bytes) -> None:
        self._raw = content
        self._left = MOST_FIELDS
        self._ir_version = 0
        self._about = {"producer": "", "producer_version": "", "doc": ""}
        self._opsets: dict[str, int] = {}
        self._metadata: dict[str, str] = {}
        self._ops: set[str] = set()
        self._locales: dict[str, None] = {}
        self._external: dict[str, None] = {}
        self._nodes: list[_Node] = []
        self._outputs: list[str] = []
        self._tensors: dict[str, tuple[int, int]] = {}

    def facts(self, damaged: str) -> GraphFacts:
        return GraphFacts(
            self._ir_version,
            self._about["producer"],
            self._about["producer_version"],
            self._opsets,
            self._about["doc"],
            self._metadata,
            None if damaged else self._labels(),
            frozenset(self._ops),
            tuple(self._locales),
            tuple(self._external),
            damaged,
        )

    def model(self) -> None:
        for tag, a, b in self._fields(0, len(self._raw)):
            if tag == _IR:
                self._ir_version = _signed(a)
            elif tag in _TEXTS_OF_MODEL:
                self._about[_TEXTS_OF_MODEL[tag]] = self._text(a, b)
            elif tag == _OPSET:
                domain, version = "", 0
                for inner, c, d in self._fields(a, b):
                    domain = self._text(c, d) if inner == 0x0A else domain
                    version = c if inner == 0x10 else version
                self._opsets[domain] = version
            elif tag == _METADATA:
                key, value = self._entry(a, b)
                self._metadata[key] = value
            elif tag == _GRAPH:
                self._graph(a, b, 1, top=True)
            elif tag == _TRAINING:
                for inner, c, d in self._fields(a, b):
                    if inner in (0x0A, 0x12):  # initialization and algorithm
                        self._graph(c, d, 2)
            elif tag == _FUNCTION:
                for inner, c, d in self._fields(a, b):
                    if inner == _FUNCTION_NODE:
                        self._node(c, d, 2)
                    elif inner == _FUNCTION_ATTRIBUTE:
                        self._attribute(c, d, 2)

    def _graph(self, start: int, end: int, depth: int, top: bool = False) -> None:
        if depth > MOST_NESTED:
            raise _Damaged(f"nested deeper than {MOST_NESTED}")
        for tag, a, b in self._fields(start, end):
            if tag == _NODE:
                node = self._node(a, b, depth + 1)
                if top and len(self._nodes) <= MOST_NODES:
                    self._nodes.append(node)
            elif tag == _INITIALIZER:
                name = self._tensor(a, b)
                if top:
                    self._tensors[name] = (a, b)
            elif tag == _SPARSE:
                self._sparse(a, b)
            elif tag == _OUTPUT and top:
                self._outputs += [self._text(c, d) for inner, c, d in self._fields(a, b) if inner == _NAME]

    def _node(self, start: int, end: int, depth: int) -> _Node:
        inputs: list[str] = []
        outputs: list[str] = []
        op, locale, labels = "", "", None
        for tag, a, b in self._fields(start, end):
            if tag == _NODE_INPUT:
                inputs.append(self._text(a, b))
            elif tag == _NODE_OUTPUT:
                outputs.append(self._text(a, b))
            elif tag == _OP:
                op = self._text(a, b)
            elif tag == _ATTRIBUTE:
                name, found = self._attribute(a, b, depth + 1)
                labels = tuple(found) if name in _LABELS and found else labels
                locale = str(found[0]) if name == "locale" and found else locale
        self._ops.add(op)
        if op == "StringNormalizer":
            self._locales[locale or DEFAULT_LOCALE] = None
        return _Node(op, inputs, outputs, labels)

    def _attribute(self, start: int, end: int, depth: int) -> tuple[str, list[Label]]:
        """Its name, and the values of one that is of use here."""
        name, values, wanted = "", list[Label](), False
        for tag, a, b in self._fields(start, end, _RUNS):
            if tag == _NAME:
                name = self._text(a, b)
                wanted = name == "locale" or name in _LABELS
            elif tag in (_TENSOR, _TENSORS):
                self._tensor(a, b)
            elif tag in (_SUBGRAPH, _SUBGRAPHS):
                self._graph(a, b, depth + 1)
            elif tag in (_SPARSE_TENSOR, _SPARSE_TENSORS):
                self._sparse(a, b)
            elif wanted and len(values) <= MOST_LABELS:
                if tag in (_STRINGS, _STRING):
                    values.append(self._text(a, b))
                elif tag == -_STRINGS:
                    values += [self._text(c, d) for _, c, d in self._fields(a, b)]
                elif tag == -_INTS:
                    values += [_signed(number) for _, number, _ in self._fields(a, b)]
                elif tag == _INTS_PACKED:
                    values += self._packed(a, b)
        return name, values

    def _sparse(self, start: int, end: int) -> None:
        for tag, a, b in self._fields(start, end):
            if tag in (0x0A, 0x12):  # values and indices
                self._tensor(a, b)

    def _tensor(self, start: int, end: int) -> str:
        """The name of a tensor; notes where its weights are."""
        name, location, elsewhere = "", "", False
        for tag, a, b in self._fields(start, end):
            if tag == _TENSOR_NAME:
                name = self._text(a, b)
            elif tag == _LOCATION:
                elsewhere = elsewhere or a == 1  # TensorProto.EXTERNAL
            elif tag == _ELSEWHERE:
                key, value = self._entry(a, b)
                location = value if key == "location" else location
        if elsewhere:
            self._external[location] = None
        return name

    def _labels(self) -> tuple[Label, ...] | None:
        """The labels of the classifier that gives the model's outputs: ZipMap's, then those of its label output,
        then those of its columns.

        A label that is computed in another way (a LabelEncoder, arithmetic) is not followed.
        """
        if len(self._nodes) > MOST_NODES:
            return None
        made = {name: (node, i) for node in self._nodes for i, name in enumerate(node.outputs) if name}
        found: dict[str, tuple[Label, ...]] = {}
        seen: set[tuple[str, bool]] = set()
        queue = [(name, True) for name in self._outputs]
        for name, same in queue:  # grows while it is read: nearest first
            if (name, same) in seen or name not in made:
                continue
            seen.add((name, same))
            node, output = made[name]
            if node.op == "ZipMap" and node.labels:
                found.setdefault("map", node.labels)
            elif node.op in _CLASSIFIERS and node.labels and (same or output > 0):
                found.setdefault("columns" if output > 0 else "label", node.labels)
            elif node.op == "ArrayFeatureExtractor" and same and node.inputs and node.inputs[0] in self._tensors:
                labels = self._constants(*self._tensors[node.inputs[0]])
                if len(labels) > 1:
                    found.setdefault("label", labels)
            elif node.op in _ORDERED:
                queue += [(each, same and node.op in _SAME) for each in node.inputs]
        best = found.get("map") or found.get("label") or found.get("columns")
        return best if best and len(set(best)) == len(best) <= MOST_LABELS else None

    def _constants(self, start: int, end: int) -> tuple[Label, ...]:
        """The elements of a small tensor of integers or strings; empty for another."""
        kind, values, raw = 0, list[Label](), b""
        for tag, a, b in self._fields(start, end):
            if b - a > LONGEST_TEXT or len(values) > MOST_LABELS:
                return ()
            if tag == _TYPE:
                kind = a
            elif tag == _TEXTS:
                values.append(self._text(a, b))
            elif tag in (_INT32S, _INT64S):
                values.append(_signed(a))
            elif tag in (_INT32S_PACKED, _INT64S_PACKED):
                values += self._packed(a, b)
            elif tag == _RAW:
                raw = self._raw[a:b]
        if kind == 8:  # TensorProto.STRING
            return tuple(values)
        size = _INTEGERS.get(kind)
        if size is None:
            return ()
        little = [raw[i : i + size] for i in range(0, len(raw), size)]
        return tuple(values) or tuple(int.from_bytes(one, "little", signed=kind in _SIGNED) for one in little)

    def _entry(self, start: int, end: int) -> tuple[str, str]:
        key = value = ""
        for tag, a, b in self._fields(start, end):
            if tag == 0x0A:
                key = self._text(a, b)
            elif tag == 0x12:
                value = self._text(a, b)
        return key, value

    def _text(self, start: int, end: int) -> str:
        return self._raw[start : min(end, start + LONGEST_TEXT)].decode("utf-8", "replace")

    def _packed(self, start: int, end: int) -> list[Label]:
        values: list[Label] = []
        while start < end and len(values) <= MOST_LABELS:
            number, start = self._varint(start, end)
            values.append(_signed(number))
        return values

    def _fields(
        self, start: int, end: int, runs: Mapping[int, re.Pattern[bytes]] | None = None
    ) -> Iterator[tuple[int, int, int]]:
        """Each field's tag, and its number (varint), or where its bytes start and end.

        Fields of ``runs`` are skipped by the run: its tag is given once, negative, with the start and end of the run.
        """
        raw, at = self._raw, start
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise _Damaged(f"more than {MOST_FIELDS} fields")
            tag = raw[at]
            if runs and tag in runs:
                found = runs[tag].match(raw, at, end)
                stop = at if found is None else found.end()
                if stop > at:
                    yield -tag, at, stop
                    at = stop
                    continue
            if tag < 0x80:
                at += 1
            else:
                tag, at = self._varint(at, end)
            wire = tag & 7
            if tag < 8:
                raise _Damaged(f"a field without a number at byte {at}")
            if wire == 2:
                size, at = (raw[at], at + 1) if at < end and raw[at] < 0x80 else self._varint(at, end)
                if size > end - at:
                    raise _Damaged(f"{size} bytes announced at byte {at}, and {end - at} are left")
                yield tag, at, at + size
                at += size
            elif wire == 0:
                number, at = self._varint(at, end)
                yield tag, number, 0
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
                if at > end:
                    raise _Damaged(f"a number is cut off at byte {end}")
            else:
                raise _Damaged(f"wire type {wire} at byte {at}, which ONNX does not use")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        number = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self._raw[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number & 0xFFFFFFFFFFFFFFFF, at
        raise _Damaged(f"a number does not end at byte {at}")


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
