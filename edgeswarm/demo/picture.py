"""The demo as one picture: accuracy over samples, bytes over time, who taught whom.

Agents beyond the eighth differ in line style, for there are eight colours.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeswarm.demo.history import History
from edgeswarm.demo.summary import Summary, percent
from edgeswarm.readable import size
from edgeswarm.sim.canvas import COLOURS, canvas, literal, saved, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (16.0, 6.4)
_GRID_POINTS = 60


def save_picture(history: History, summary: Summary, title: str, path: Path) -> Path:
    """Draw the three panels into a PNG of 1600 x 640 pixels at `path`; folders are made. Returns the path.

    Raises NoPicture when matplotlib is missing or the file cannot be written.
    """
    figure = canvas(SIZE_INCHES)
    accuracy, traffic, taught = figure.subplots(1, 3, width_ratios=(1.25, 1.0, 1.15))
    _accuracy(accuracy, history, summary)
    _traffic(traffic, history, summary)
    _taught(taught, history)
    figure.suptitle(literal(title), fontsize=15)
    return saved(figure, path)


def _styles(history: History) -> list[tuple[str, str, str]]:
    """(node, colour, line style when solid is meant)."""
    dashes = ("-", "-.")
    return [
        (node, COLOURS[i % len(COLOURS)], dashes[(i // len(COLOURS)) % len(dashes)])
        for i, node in enumerate(history.agents)
    ]


def _accuracy(axes: Axes, history: History, summary: Summary) -> None:
    for node, colour, style in _styles(history):
        agent = history.agents[node]
        for name, line, width in (("holdout_alone", "--", 1.1), ("holdout_swarm", style, 1.3)):
            xs, ys = agent.series("samples", name)
            axes.plot(xs, [100 * y for y in ys], line, color=colour, linewidth=width, alpha=0.75)
    for name, line, label, at in (
        ("holdout_swarm", "-", f"with the swarm, mean (now {percent(summary.together)})", summary.together),
        ("holdout_alone", "--", f"alone, mean (now {percent(summary.alone)})", summary.alone),
    ):
        xs, ys = mean_line(history, name)
        if at is not None and len(xs):
            axes.plot(xs, [100 * y for y in ys], line, color="black", linewidth=3.2, label=label)
    axes.set_title("What each device recognises\nof samples nobody has learnt from", fontsize=13)
    axes.set_xlabel("labelled samples a device has learnt itself", fontsize=11)
    axes.set_ylabel("hold-out samples recognised, %", fontsize=11)
    axes.set_ylim(0, 101)
    axes.set_xlim(left=0)
    tidy(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", fontsize=10.5, framealpha=0.9, title="thin lines: one per device")


def mean_line(history: History, name: str) -> tuple[list[float], list[float]]:
    """Mean over the agents of a number as a function of samples learnt, where every curve drawn is defined.

    Each agent's reports are joined by straight lines; the mean begins where the last agent has begun and ends where
    the first one ends.
    """
    import numpy as np

    curves = []
    for agent in history.agents.values():
        xs, ys = agent.series("samples", name)
        if len(xs) >= 2 and xs[-1] > xs[0]:
            curves.append((xs, ys))
    if not curves:
        return [], []
    first, last = max(xs[0] for xs, _ in curves), min(xs[-1] for xs, _ in curves)
    if last <= first:
        return [], []
    grid = np.linspace(first, last, _GRID_POINTS)
    mean = np.mean([np.interp(grid, xs, ys) for xs, ys in curves], axis=0)
    return grid.tolist(), mean.tolist()


def _traffic(axes: Axes, history: History, summary: Summary) -> None:
    for node, colour, style in _styles(history):
        out_at, out = history.agents[node].series("at_s", "bytes_sent")
        in_at, received = history.agents[node].series("at_s", "bytes_received")
        axes.plot(out_at, [count / 1000 for count in out], style, color=colour, linewidth=1.8, label=node)
        axes.plot(in_at, [count / 1000 for count in received], ":", color=colour, linewidth=1.3)
    axes.set_title(_cost(summary), fontsize=13)
    axes.set_xlabel("seconds since the start", fontsize=11)
    axes.set_ylabel("MQTT bytes so far, kB (solid: sent, dotted: received)", fontsize=11)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    tidy(axes)
    if history.agents:
        axes.legend(loc="upper left", fontsize=10.5, framealpha=0.9)


def _cost(summary: Summary) -> str:
    if summary.sharing_bytes_per_agent is None or summary.saved is None:
        return "What it cost"
    less = "less" if summary.saved >= 0 else "more"
    sharing, raw = size(summary.sharing_bytes_per_agent), size(summary.raw_bytes_per_agent)
    return (
        f"What it cost: {sharing} per device for sharing,\n"
        f"{percent(abs(summary.saved))} {less} than the raw samples ({raw})"
    )


def _taught(axes: Axes, history: History) -> None:
    """A matrix, not a graph of arrows: twenty arrows cross one another, twenty numbers do not."""
    import numpy as np

    nodes = list(history.agents)
    share = taught_shares(history)
    most = max(map(max, share), default=0.0)
    pairs = np.ma.masked_array(share, mask=np.eye(len(nodes), dtype=bool))
    axes.set_facecolor("#dddddd")
    axes.imshow(pairs, cmap="cividis", vmin=0.0, vmax=max(0.01, most))
    small = len(nodes) > 8
    for i, learner in enumerate(nodes):
        for j, teacher in enumerate(nodes):
            if learner == teacher:
                continue
            link = history.agents[learner].links.get(teacher, {})
            text = "-" if "weight" not in link else f"{100 * share[i][j]:.0f} %"
            if "prototypes" in link and not small:
                text += f"\n{link['prototypes']:.0f} protos"
            colour = "black" if share[i][j] > 0.55 * most else "white"
            axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8 if small else 10)
    labels = [_labelled(history, node) for node in nodes]
    axes.set_xticks(range(len(nodes)), nodes, fontsize=8 if small else 10.5)
    axes.set_yticks(range(len(nodes)), labels, fontsize=8 if small else 10.5)
    axes.set_title("Who taught whom: what a learner\ntook from peers, by teacher", fontsize=13)
    axes.set_xlabel("teacher (protos: how many prototypes the learner holds of it)", fontsize=11)
    axes.set_ylabel("learner (sees most)", fontsize=11)


def taught_shares(history: History) -> list[list[float]]:
    """share[learner][teacher]: weight x prototypes of the link, divided by the learner's sum over its teachers.

    Zero where nothing was reported; every row with a report sums to 1.
    """
    nodes = list(history.agents)
    found = []
    for learner in nodes:
        links = history.agents[learner].links
        amounts = [links.get(t, {}).get("weight", 0.0) * links.get(t, {}).get("prototypes", 0.0) for t in nodes]
        whole = sum(amounts)
        found.append([amount / whole if whole > 0 else 0.0 for amount in amounts])
    return found


def _labelled(history: History, node: str) -> str:
    main = " ".join(history.agents[node].main)
    return f"{node}\n{literal(main if len(main) <= 14 else main[:13] + '…')}" if main else node
