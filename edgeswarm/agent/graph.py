"""Who hears whom, as the configuration says it: the rule every node knows, looked at before anything runs.

A graph of fixed names is built here once, so that one that cannot be built, or falls into parts that never hear of one
another, is refused at the start. Without names the rule is applied to whoever is present, again and again.
"""

from __future__ import annotations

from pathlib import Path

from edgeswarm.agent.faults import fault_text
from edgeswarm.agent.names import did_you_mean
from edgeswarm.agent.settings import GraphConfig
from edgeswarm.errors import ConfigError
from edgeswarm.maths.graphs import Topology
from edgeswarm.wire.topics import is_name

FILE_LIMIT_BYTES = 4_000_000

Edge = tuple[str, str, float]


def topology(graph: GraphConfig, node: str = "") -> Topology | None:
    """The rule of [graph]; None where nothing is set: everybody hears everybody.

    node: must belong to it; "" asks for no name.  Raises ConfigError, one line.
    """
    if graph == GraphConfig():
        return None
    if graph.kind == "edges" and not graph.file:
        raise ConfigError("[graph] file is not set: kind edges needs one, with lines of two names")
    edges = tuple((a, b) for a, b, _ in read_edges(Path(graph.file))) if graph.kind == "edges" else ()
    names = tuple(sorted(graph.names or {name for edge in edges for name in edge}))
    foreign = sorted({name for edge in edges for name in edge} - set(names))
    if foreign:
        raise ConfigError(
            f"[graph] file: {graph.file} has {foreign[0]!r}, which is none of the devices: {_listed(names)}"
        )
    if names and node and node not in names:
        raise ConfigError(f"[graph] names: this node, {node!r}, is not among them{did_you_mean(node, names)}")
    try:
        made = Topology(graph.kind, names, graph.degree, graph.probability, graph.seed, edges, graph.weights)
        parts = made.graph(names[0], ()).components() if names else None
    except ValueError as error:  # begins with the key
        raise ConfigError(f"[graph] {error}") from None
    if parts is not None and parts.any():
        apart = names[int(parts.argmax())]
        raise ConfigError(
            f"[graph] kind: the graph falls apart: news of {names[0]} and of {apart} do not reach both, not even "
            "through others; add edges, or choose another kind, degree, probability or seed"
        )
    return made


def circle(rule: Topology | None, node: str) -> frozenset[str] | None:
    """Whose presence and words to all concern `node`: those it hears and those that hear it. None for everybody's:
    where the graph is of whoever is present, or so dense that asking for each costs more than it saves.
    """
    if rule is None or not rule.names:
        return None
    graph = rule.graph(node, ())
    near = frozenset(graph.neighbours(node)) | frozenset(graph.listeners(node))
    return near if 2 * len(near) < len(graph.names) else None


def read_edges(path: Path) -> tuple[Edge, ...]:
    """(name, name, quality) from lines "a b" or "a b 0.8"; what follows # is a remark. Quality: 1 where none is given.

    Raises ConfigError naming the line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"[graph] file: {fault_text('read the edges', path, error)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"[graph] file: {path} is not UTF-8 text") from None
    if len(data) > FILE_LIMIT_BYTES:
        raise ConfigError(f"[graph] file: {path} is larger than {FILE_LIMIT_BYTES} bytes")
    edges: list[Edge] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            edges.append(_edge(words, f"[graph] file: {path}:{number}"))
    if not edges:
        raise ConfigError(f"[graph] file: {path} has no edge")
    return tuple(edges)


def _listed(names: tuple[str, ...], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _edge(words: list[str], where: str) -> Edge:
    if len(words) not in (2, 3):
        raise ConfigError(f"{where}: a line is two names and perhaps a quality, not {len(words)} words")
    wrong = next((name for name in words[:2] if not is_name(name)), None)
    if wrong is not None:
        raise ConfigError(f"{where}: {wrong!r} is no node's name")
    if words[0] == words[1]:
        raise ConfigError(f"{where}: {words[0]!r} with itself is no edge")
    try:
        quality = float(words[2]) if len(words) == 3 else 1.0
    except ValueError:
        quality = -1.0
    if not 0.0 <= quality < float("inf"):
        raise ConfigError(f"{where}: a quality is a number from 0, not {words[2]!r}")
    return words[0], words[1], quality
