"""What a sweep came to, as a picture: each setting's accuracy, and that against the bytes it cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeswarm.readable import size
from edgeswarm.sim.canvas import COLOURS, canvas, literal, saved, tidy
from edgeswarm.sim.sweep import Row

PICTURE = "sweep.png"
EXAMS = {"accuracy": ("own mix", "o", True), "accuracy_common": ("all classes alike", "s", False)}
"""Of each figure: its name, its mark, and whether that is filled."""


def draw(rows: Sequence[Row], title: str, path: Path) -> Path:
    """Accuracy by setting, and against bytes, with the standard deviation where there is one. Raises NoPicture.

    Settings have numbers, which the right panel shows; colours tell settings apart in both, marks the exams.
    """
    shown = [row for row in rows if row.mean["accuracy"] is not None]
    figure = canvas((12.0, max(3.6, 1.8 + 0.42 * len(shown))))
    bars, costs = figure.subplots(1, 2, width_ratios=(1.2, 1.0))
    places = []
    for at, row in enumerate(shown):
        for key, shift in zip(EXAMS, (-0.16, 0.16), strict=True):
            mean, sd = _percent(row, key)
            bars.errorbar(mean, at + shift, xerr=sd, capsize=4, **_mark(key, COLOURS[at % len(COLOURS)]))
        spent = row.mean["bytes_per_node"] or 0.0
        mean, sd = _percent(row, "accuracy_common")
        mark = _mark("accuracy_common", COLOURS[at % len(COLOURS)])
        costs.errorbar(spent, mean, xerr=row.sd["bytes_per_node"], yerr=sd, capsize=4, **mark)
        places.append((spent, mean))
    for text, place in numbers(places):
        costs.annotate(text, place, xytext=(6, 5), textcoords="offset points", fontsize=9)
    names = [f"{label(row)}   {number}" for number, row in enumerate(shown, 1)]
    bars.set_yticks(list(range(len(shown))), [literal(name) for name in names])
    bars.set_ylim(len(shown) - 0.5, -0.5)
    bars.set_xlabel("samples recognised, %")
    bars.set_title(literal(title), fontsize=11, loc="left")
    bytes_axis(costs, [spent for spent, _ in places])
    costs.set_xlabel("MQTT bytes of a device, sent and received")
    costs.set_ylabel("all classes alike, %")
    for axes in (bars, costs):
        tidy(axes)
    for key, (name, _, _) in EXAMS.items():
        bars.errorbar([], [], label=name, **_mark(key, "black"))
    repeated = any(row.sd["accuracy"] is not None for row in shown)
    figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=9, alignment="left",
                  title="mean and standard deviation over the seeds" if repeated else None)  # fmt: skip
    return saved(figure, path)


def _percent(row: Row, key: str) -> tuple[float, float | None]:
    mean, sd = row.mean[key], row.sd[key]
    return 100 * (mean or 0.0), None if sd is None else 100 * sd


def _mark(key: str, colour: str) -> dict[str, Any]:
    _, shape, filled = EXAMS[key]
    return {"fmt": shape, "color": colour, "markerfacecolor": colour if filled else "white"}


def label(row: Row) -> str:
    """A setting in words that say which value is whose; methods need no key."""
    found = [
        value if key == "strategy.name" else f"{key.removeprefix('strategy.')} {value}" for key, value in row.setting
    ]
    return ", ".join(found) or "as it is"


def numbers(places: Sequence[tuple[float, float]]) -> list[tuple[str, tuple[float, float]]]:
    """Numbers from 1 on, and where they stand: those of points (bytes, percent) that lie on one another in one text."""
    heights = [y for _, y in places]
    near = 0.04 * (max(heights) - min(heights)) if heights else 0.0
    found: list[tuple[list[str], tuple[float, float]]] = []
    for number, (x, y) in enumerate(places, 1):
        same = [here for here, (u, v) in found if abs(x - u) <= 0.03 * max(x, u) and abs(y - v) <= near]
        if same:
            same[0].append(str(number))
        else:
            found.append(([str(number)], (x, y)))
    return [(", ".join(here), place) for here, place in found]


def bytes_axis(axes: Any, values: Sequence[float]) -> None:
    """The horizontal axis for amounts of bytes, with units: powers of ten where they lie that far apart, and twice and
    five times these where they are few; else from 0, for there a logarithmic axis has more words than room."""
    from matplotlib.ticker import LogLocator

    above = [value for value in values if value > 0]
    if above and max(above) >= 10 * min(above):
        axes.set_xscale("log")
        few = max(above) < 100 * min(above)
        axes.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0) if few else "auto"))
        axes.xaxis.set_minor_formatter(lambda value, place: size(value) if few else "")
    else:
        axes.set_xlim(0.0, 1.15 * max(above, default=1.0))
    axes.xaxis.set_major_formatter(lambda value, place: size(value))
