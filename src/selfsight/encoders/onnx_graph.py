"""What an ONNX file says of itself that the runtime does not tell: how many parameters, and which layer comes last.

A few fields of the protobuf wire format (protobuf.dev/programming-guides/encoding; onnx/onnx.proto), so that reading a network
needs no more than ONNX Runtime.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

_GRAPH, _NODE, _INITIALIZER = 7, 1, 5  # ModelProto.graph, GraphProto.node, GraphProto.initializer
_NODE_OUTPUT, _NODE_TYPE = 2, 4
_DIMS, _DATA_TYPE, _EXTERNAL = 1, 2, 13
_FLOATS = (1, 10, 11, 16)  # TensorProto: float, float16, double, bfloat16


class GraphFacts(NamedTuple):
    """`parameters` counts the floating-point initializers; `producers` names the operator that makes each tensor; `beside` are
    the files in which initializers are kept outside of the graph."""

    parameters: int
    producers: dict[str, str]
    beside: set[str]


def facts(data: bytes) -> GraphFacts:
    """Facts of a serialized ModelProto; `ValueError` or `IndexError` where the bytes are none."""
    parameters, producers, beside = 0, {}, set()
    for graph in (value for number, value in _fields(memoryview(data)) if number == _GRAPH and isinstance(value, memoryview)):
        for number, value in _fields(graph):
            if number == _INITIALIZER and isinstance(value, memoryview):
                parameters += _size(value)
                beside |= _locations(value)
            elif number == _NODE and isinstance(value, memoryview):
                outputs, operator = _node(value)
                producers.update(dict.fromkeys(outputs, operator))
    return GraphFacts(parameters, producers, beside)


def _node(node: memoryview) -> tuple[list[str], str]:
    outputs, operator = [], ""
    for number, value in _fields(node):
        if number == _NODE_OUTPUT and isinstance(value, memoryview):
            outputs.append(bytes(value).decode())
        elif number == _NODE_TYPE and isinstance(value, memoryview):
            operator = bytes(value).decode()
    return outputs, operator


def _locations(tensor: memoryview) -> set[str]:
    """The file that an initializer points to, if it does: TensorProto.external_data holds pairs of key and value."""
    pairs = [dict(_fields(value)) for number, value in _fields(tensor) if number == _EXTERNAL and isinstance(value, memoryview)]
    texts = [{number: bytes(text).decode() for number, text in pair.items() if isinstance(text, memoryview)} for pair in pairs]
    return {pair[2] for pair in texts if pair.get(1) == "location" and 2 in pair}


def _size(tensor: memoryview) -> int:
    """Number of elements of a floating-point TensorProto, 0 for another type."""
    dims: list[int] = []
    floating = False
    for number, value in _fields(tensor):
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else list(_packed(value))
        elif number == _DATA_TYPE:
            floating = value in _FLOATS
    return math.prod(dims) if floating else 0


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of one message; fixed-width fields come as their bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire == 2:
            length, place = _varint(data, place)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if place + length > len(data):
            raise ValueError("cut off")
        yield number, data[place : place + length]
        place += length


def _packed(data: memoryview) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
