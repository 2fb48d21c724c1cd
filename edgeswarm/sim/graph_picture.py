"""Who hears whom, drawn: for a terminal, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths.graphs import Graph
from edgeswarm.sim.canvas import COLOURS, NoPicture, canvas, literal, saved

MOST = 1500
"""Nodes that a picture can show."""
NAMED = 60
"""Nodes up to which names stand in it."""
ROWS = 40
"""Nodes up to which a terminal shows who hears whom."""
_STEPS = 150

Points = NDArray[np.float64]


def matrix_lines(graph: Graph) -> list[str]:
    """One line a node: who hears (the line) whom (the column). [] for more than ROWS nodes."""
    n = len(graph.names)
    if not 0 < n <= ROWS:
        return []
    cells = np.full((n, n), "·")
    cells[graph.pairs[:, 0], graph.pairs[:, 1]] = "■"
    cells[range(n), range(n)] = "╲"
    width = max(map(len, graph.names))
    return [f"{name:<{width}}  {' '.join(row)}" for name, row in zip(graph.names, cells.tolist(), strict=True)]


def save_picture(
    graph: Graph,
    title: str,
    facts: str,
    path: Path,
    kind: str = "",
    quality: Mapping[tuple[str, str], float] | None = None,
) -> Path:
    """Draw nodes and links into a PNG of 1000 x 1060 pixels, or an SVG by the path's ending. Returns the path.

    Parts that never hear of one another differ in colour; better links are darker where their quality is known.
    Raises NoPicture: matplotlib is missing, the file cannot be written, or there are more than MOST nodes.
    """
    n = len(graph.names)
    if n > MOST:
        raise NoPicture(f"no picture: {n} nodes are more than the {MOST} that one can show")
    figure = canvas((10.0, 10.6))  # says so where matplotlib is missing
    from matplotlib.collections import LineCollection

    axes = figure.subplots()
    at = positions(graph, kind)
    lines = [(i, j) for i, j in graph.pairs.tolist() if graph.directed or i < j]
    if graph.directed:
        for i, j in lines:  # from who is heard to who hears: the way news goes
            axes.annotate(
                "", at[i], at[j], arrowprops={"arrowstyle": "-|>", "color": "#666666", "shrinkA": 9, "shrinkB": 9}
            )
    else:
        shades = [_shade(graph, i, j, quality or {}) for i, j in lines]
        thin = float(np.clip(60.0 / max(1, len(lines)) ** 0.6, 0.25, 1.8))
        axes.add_collection(
            LineCollection([(at[i], at[j]) for i, j in lines], colors=shades, linewidths=thin, zorder=1)
        )
    parts = graph.components() if n else np.zeros(0, np.int64)
    size = float(np.clip(9000 / max(1, n), 14, 420))
    axes.scatter(at[:, 0], at[:, 1], s=size, c=[COLOURS[part % len(COLOURS)] for part in parts], zorder=2,
                 edgecolors="white", linewidths=1.2 if n <= NAMED else 0.4)  # fmt: skip
    if n <= NAMED:
        _name(axes, graph, at, kind)
    axes.set_aspect("equal")
    axes.margins(0.11 if n <= NAMED else 0.04)
    axes.axis("off")
    axes.set_title(literal(title), fontsize=18)
    figure.supxlabel(literal(facts), fontsize=13)
    return saved(figure, path)


def _shade(graph: Graph, i: int, j: int, quality: Mapping[tuple[str, str], float]) -> tuple[float, float, float, float]:
    """Grey; where qualities are known, the darker the better the link ranks among them."""
    if not quality:
        return 0.35, 0.35, 0.35, float(np.clip(20.0 / max(1, len(graph.pairs)) ** 0.5, 0.25, 0.75))
    a, b = graph.names[i], graph.names[j]
    value = min((quality[pair] for pair in ((a, b), (b, a)) if pair in quality), default=0.0)
    ranks = sorted(quality.values())
    share = float(np.searchsorted(ranks, value, side="right")) / len(ranks)
    return 0.0, 0.0, 0.0, 0.15 + 0.75 * share


def _name(axes: Any, graph: Graph, at: Points, kind: str) -> None:
    """Names beside the nodes, away from the middle on a circle, above them elsewhere."""
    centre = at.mean(axis=0)
    for name, point in zip(graph.names, at, strict=True):
        outward = point - centre
        length = float(np.linalg.norm(outward))
        away = outward / length if _round(kind) and length > 1e-9 else np.array([0.0, 1.0])
        axes.annotate(
            literal(name), point, xytext=15 * away, textcoords="offset points", fontsize=12, zorder=3,
            ha="left" if away[0] > 0.3 else "right" if away[0] < -0.3 else "center",
            va="bottom" if away[1] > 0.3 else "top" if away[1] < -0.3 else "center",
            bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
        )  # fmt: skip


def _round(kind: str) -> bool:
    return kind in ("full", "ring", "directed-ring", "circulant", "exponential", "")


def positions(graph: Graph, kind: str = "") -> Points:
    """(n, 2): a grid for a torus, four rings for dyck, a circle for what goes round, else by springs."""
    n = len(graph.names)
    angle = np.pi / 2 - 2 * np.pi * np.arange(n) / max(1, n)  # clockwise from the top
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    if kind == "torus" and n:
        rows = next(side for side in range(int(n**0.5), 0, -1) if n % side == 0)
        if rows > 1:
            return _torus(rows, n // rows)
    if kind == "dyck" and n == 32:
        ring, place = np.divmod(np.arange(32), 8)
        turn = np.pi / 2 - 2 * np.pi * (place + 0.5 * (ring % 2)) / 8
        return np.stack([np.cos(turn), np.sin(turn)], axis=1) * (1.0 + ring)[:, None]
    return circle if _round(kind) or n < 4 else _springs(graph, circle)


def _torus(rows: int, columns: int) -> Points:
    """A grid, bent a little so that the lines that close it do not hide behind the others."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    bend_x = 0.22 * np.sin(np.pi * row / max(1, rows - 1))
    bend_y = 0.22 * np.sin(np.pi * column / max(1, columns - 1))
    return np.stack([column + bend_x, -row + bend_y], axis=1).astype(np.float64)


def _springs(graph: Graph, start: Points) -> Points:
    """T. Fruchterman, E. Reingold, 1991: links pull, nodes push, and movement cools down. A pull towards the middle
    keeps parts that are not linked in sight of one another."""
    n = len(start)
    i, j = graph.pairs.T
    at = start + 0.01 * np.random.default_rng(0).standard_normal((n, 2))
    ideal = (1.0 / n) ** 0.5
    for step in range(_STEPS):
        apart = at[:, None, :] - at[None, :, :]
        squares = (apart**2).sum(axis=2) + 1e-9
        move = (apart * (ideal**2 / squares)[:, :, None]).sum(axis=1)
        pull = at[j] - at[i]
        move += np.stack([np.bincount(i, pull[:, axis] * np.linalg.norm(pull, axis=1), minlength=n) for axis in (0, 1)],
                         axis=1) / ideal  # fmt: skip
        move -= 0.6 * at
        length = np.linalg.norm(move, axis=1, keepdims=True)
        at = at + move / np.maximum(length, 1e-9) * np.minimum(length, 0.12 * (1 - step / _STEPS) + 0.002)
    return at
