"""Measured ages of information as points on the curves of the formulas. Used by age.py; needs Matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeswarm.maths import age

# Okabe and Ito's colours, told apart with every kind of colour vision; markers differ too
_STYLES = {
    "paced": ("#0072B2", "o", "paced: half a period"),
    "poisson": ("#D55E00", "s", "random (Poisson): 1 / rate"),
    "fifo": ("#D55E00", "s", "first come, first served (one source)"),
    "replacing": ("#0072B2", "o", "newest waits (four sources)"),
    "preempting": ("#009E73", "^", "newest interrupts (four sources)"),
}


def draw(cases: Sequence[Any], path: Path) -> None:
    """Two panels: real links over the rate of sending, and a receiver that needs time over its load."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left"}
    with plt.rc_context(style):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.3), layout="constrained")
        rates = np.geomspace(0.4, 26, 100)
        _panel(left, cases, rates, {"poisson": age.mean_age_link, "paced": lambda r: age.mean_age_paced(1 / r)})
        left.set(xscale="log", xlabel="messages per second on each link (Hz)", ylabel="mean age of information (s)")
        left.set_title("Five agents, a real broker, 20 links")
        ticks = [0.5, 1, 2, 5, 10, 20]
        left.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        left.set_yticks([0.03, 0.1, 0.3, 1, 3], ["0.03", "0.1", "0.3", "1", "3"])
        left.minorticks_off()

        loads = np.geomspace(0.08, 2.4, 200)
        formulas: dict[str, Callable[[float], float]] = {
            "fifo": lambda load: age.mean_age_fifo(load, 1.0),
            "preempting": lambda load: age.mean_age_preempting(load / 4, 1.0, 4),
            "replacing": lambda load: age.mean_age_replacing(load / 4, 1.0, 4),
        }
        _panel(right, cases, loads, formulas)
        right.set(xscale="log", ylim=(2.5, 400), xlabel="load of the receiver (arrivals per service time)")
        right.set_ylabel("mean age (service times)")
        right.set_title("A receiver that needs time, simulated")
        right.set_xticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"], minor=False)
        right.set_yticks([3, 10, 30, 100], ["3", "10", "30", "100"])
        right.minorticks_off()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _panel(axes: Any, cases: Sequence[Any], grid: Any, formulas: dict[str, Callable[[float], float]]) -> None:
    for kind, formula in formulas.items():
        colour, marker, label = _STYLES[kind]
        curve = np.array([formula(float(x)) for x in grid])
        axes.plot(grid, np.where(curve < 70, curve, np.nan), color=colour, lw=1.5, zorder=2, label=label)
        mine = [case for case in cases if case.kind == kind]
        for case in mine:
            axes.scatter([case.x] * len(case.ages_s), case.ages_s, s=7, color=colour, alpha=0.35, lw=0, zorder=3)
        axes.scatter(
            [case.x for case in mine], [case.measured_s for case in mine], s=42, marker=marker, facecolor="white",
            edgecolor=colour, linewidth=1.6, zorder=4,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.grid(True, which="major", color="#dddddd", lw=0.7)
    axes.set_axisbelow(True)
    axes.scatter(
        [], [], s=42, facecolor="white", edgecolor="#555555", linewidth=1.6, label="measured: mean of all links"
    )
    axes.scatter([], [], s=9, color="#555555", alpha=0.6, lw=0, label="measured: each link")
    axes.legend(
        loc="upper left" if "fifo" in formulas else "upper right",
        frameon=False,
        fontsize=8.5,
        title="lines: formulas",
        title_fontsize=8.5,
        alignment="left",
    )
