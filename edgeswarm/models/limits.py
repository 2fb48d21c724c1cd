"""How much of a model file a board is ready to take in; everything beyond is refused before memory is spent on it."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on a model file. The defaults suit a board of 512 MiB; a firmware profile may set others.

    file_bytes: all members together, unpacked, and the archive itself.  parameters: numbers in the vector.
    members: files in the folder or archive.  card_bytes: of model.json and of reference.json.  nodes: operations in
    one graph.  dimension: the longest axis of any array.  fields: protobuf fields and packed numbers in one graph,
    which bounds the time and memory it takes to read it.  text_bytes: of one name in a graph.  values: numbers in an
    array whose shape the graph itself says, however small the file.
    """

    file_bytes: int = 64 * MEBIBYTE
    parameters: int = 10_000_000
    members: int = 64
    card_bytes: int = MEBIBYTE
    nodes: int = 20_000
    dimension: int = 2**31 - 1
    fields: int = 300_000
    text_bytes: int = 4096
    values: int = 1 << 26
