"""All methods and controls on one's own data: what each reaches for equal bytes, and in equal time.

Every method plays the same scenario (`sim.run`), with the knobs that it has; what it reached is known at each
examination (`looks`), together with the bytes that it had cost by then. Between two of them both go in straight lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeswarm.agent.fields import settings_of
from edgeswarm.agent.names import did_you_mean
from edgeswarm.errors import ConfigError
from edgeswarm.readable import brief, percent, size
from edgeswarm.sim.canvas import COLOURS, canvas, saved, tidy, time_unit
from edgeswarm.sim.methods import METHODS, not_own, told
from edgeswarm.sim.outcome import Outcome
from edgeswarm.sim.scenario import ReportTable, Scenario, changed
from edgeswarm.sim.sweep import SEED, Cell, sweep, table, tuned
from edgeswarm.sim.sweep_picture import bytes_axis
from edgeswarm.strategies import STRATEGIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS = 30
"""Examinations of a run at times that grow by one factor, from a tenth of the first round on."""
TENTHS = 10
"""More of them, evenly."""
CUTS = 4
"""Most budgets in the table of equal bytes."""
TIMES = (0.1, 0.3, 1.0)
"""Parts of the run at which the table of equal time looks; tenths, so that there is an examination."""
EXAMS = {"own": "accuracy", "common": "accuracy_common"}
"""Classes in the proportions in which each device sees them, or all alike: a figure of `Outcome`."""
PICTURES = ("compare-bytes.png", "compare-time.png")


@dataclass(frozen=True)
class Curve:
    """What one method reached, mean of all devices and runs. at_s: virtual times.  bytes: of a device so far, sent and
    received.  accuracy: by name of EXAMS.  rounds, age_s: at the end, None where the method has none.
    runs: how many; failed: why others could not be played.  head: which one answers, of a method with auxiliary
    heads.  settings: that are not the method's own.  strategy: the method and all its knobs, as played."""

    method: str
    at_s: tuple[float, ...] = ()
    bytes: tuple[float, ...] = ()
    accuracy: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rounds: float | None = None
    age_s: float | None = None
    runs: int = 0
    failed: tuple[str, ...] = ()
    head: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    strategy: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The method, and which of its heads answers."""
        return f"{self.method} ({self.head})" if self.head else self.method

    def for_bytes(self, budget: float, exam: str) -> float | None:
        """Accuracy once a device has spent that many bytes; at the end, where it never does. None before the first
        examination."""
        return _between(budget, self.bytes, self.accuracy[exam]) if self.runs else None

    def in_time(self, at_s: float, exam: str) -> float | None:
        """Accuracy at that time. None before the first examination."""
        return _between(at_s, self.at_s, self.accuracy[exam]) if self.runs else None

    def plain(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "method": self.method,
            "control": METHODS[self.method].control,
            "at_s": list(self.at_s),
            "bytes": list(self.bytes),
            **{f"accuracy_{exam}": list(values) for exam, values in self.accuracy.items()},
            "rounds": self.rounds,
            "age_s": self.age_s,
            "runs": self.runs,
            "failed": list(self.failed),
            "head": self.head,
            "settings": dict(self.settings),
            "strategy": dict(self.strategy),
        }


def _between(at: float, places: Sequence[float], values: Sequence[float]) -> float | None:
    """Value at a place, by a straight line; the last beyond the last; None before the first."""
    return float(np.interp(at, places, values)) if at >= places[0] else None


# ---- running ---------------------------------------------------------------------------------------------------------


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Methods by name; all of them for none. Raises ConfigError."""
    for name in names:
        if name not in STRATEGIES:
            raise ConfigError(f"--methods: {name!r} is no method{did_you_mean(name, STRATEGIES)}")
    return tuple(dict.fromkeys(names)) or tuple(METHODS)


def looks(duration_s: float, period_s: float) -> tuple[float, ...]:
    """Times of a run's examinations: close together at first, where a few rounds cost what some budget allows."""
    growing = np.geomspace(min(duration_s, period_s) / 10, duration_s, LOOKS)
    evenly = duration_s * np.arange(1, TENTHS + 1) / TENTHS
    return tuple(sorted({round(at_s, 6) for at_s in (*growing.tolist(), *evenly.tolist())}))


def cells(
    scenario: Scenario, methods: Sequence[str], knobs: Mapping[str, str], seeds: int, exam: str = "common"
) -> list[Cell]:
    """A run for each method and seed. knobs: for every method that has them; what neither they nor the scenario say is
    as `sweep.tuned` has it.

    exam: of EXAMS. A method with auxiliary heads answers with the main one, which learns a device's own samples alone;
    where all classes count alike, with the last of those that learn from others, unless knobs say which.
    Raises ConfigError: a knob that no method has, or one that a method refuses.  ModelError: the model's file.
    """
    known = {name: settings_of(STRATEGIES[name]) for name in methods}
    everybody = {knob for settings in known.values() for knob in settings}
    for knob in knobs:
        if knob not in everybody:
            raise ConfigError(f"--set strategy.{knob}: no method has such a knob{did_you_mean(knob, everybody)}")
    duration_s, found = scenario.swarm.duration_s, []
    for name in methods:
        own = {f"strategy.{knob}": value for knob, value in knobs.items() if knob in known[name]}
        given = changed(scenario, {"strategy.name": name, **own})
        times = looks(duration_s, getattr(given.method(), "period_s", duration_s))
        given = replace(given, report=ReportTable(duration_s, times))
        played = tuned({}, given, exam).scenario
        for seed in range(seeds):
            settings = {"strategy.name": name, SEED: str(scenario.swarm.seed + seed)}
            found.append(Cell(settings, changed(played, settings)))
    return found


def compare(
    wanted: Sequence[Cell],
    folder: Path,
    jobs: int = -1,
    backend: str = "auto",
    progress: Callable[[int, int, Cell], None] = lambda done, of, cell: None,
    stop: Callable[[], bool] = lambda: False,
    died: Callable[[str], None] = lambda why: None,
    exam: str = "common",
) -> list[Curve]:
    """A curve for each method, the best at the end first. Runs are kept in `folder` and not played again.

    jobs, progress, stop, died: as `sweep` has them.  exam: of EXAMS, says what is best.  Raises what `sweep` does.
    """
    outcomes = sweep(wanted, folder, jobs, backend=backend, progress=progress, stop=stop, died=died)
    failed = {dict(row.setting)["strategy.name"]: row.failed for row in table(wanted, outcomes, folder)}
    by_method: dict[str, list[Outcome]] = {}
    for cell, outcome in zip(wanted, outcomes, strict=True):
        by_method.setdefault(cell.settings["strategy.name"], []).extend([outcome] if outcome is not None else [])
    curves = [_curve(method, found, failed.get(method, ())) for method, found in by_method.items()]
    return sorted(curves, key=lambda curve: -(curve.in_time(math.inf, exam) or -1.0))


def _curve(method: str, outcomes: Sequence[Outcome], failed: tuple[str, ...]) -> Curve:
    """The mean of some runs of one method, at the examinations in which some device had an answer in every run."""
    if not outcomes:
        return Curve(method, failed=failed)
    there = [
        at for at in range(len(outcomes[0].at_s))
        if all(outcome.column(key, at) for outcome in outcomes for key in EXAMS.values())
    ]  # fmt: skip
    if not there:
        return Curve(method, failed=(*failed, "no device had an answer in all its runs"))

    def mean(key: str, at: int) -> float:
        return float(np.mean([outcome.mean(key, at) or 0.0 for outcome in outcomes]))

    def last(key: str) -> float | None:
        found = [value for outcome in outcomes if (value := outcome.mean(key)) is not None]
        return float(np.mean(found)) if found else None

    return Curve(
        method,
        tuple(outcomes[0].at_s[at] for at in there),
        tuple(mean("bytes_sent", at) + mean("bytes_received", at) for at in there),
        {exam: tuple(mean(key, at) for at in there) for exam, key in EXAMS.items()},
        last("rounds"),
        last("age_s"),
        len(outcomes),
        failed,
        _head(method, outcomes[0]),
        not_own(method, outcomes[0].scenario["strategy"]),
        outcomes[0].scenario["strategy"],
    )


def _head(method: str, outcome: Outcome) -> str:
    """Which head answered; "" where there is one alone."""
    if "serve" not in settings_of(STRATEGIES[method]):
        return ""
    serve = int(outcome.scenario["strategy"].get("serve", 0))
    return f"auxiliary head {serve}" if serve else "main head"


def sentences(curves: Sequence[Curve]) -> list[str]:
    """What a reader of the tables should know: settings, and heads that answer."""
    played = [curve for curve in curves if curve.runs]
    return told({curve.method: curve.settings for curve in played}) + [
        f"{curve.method} answers with its main head, which learns own samples alone; where all classes count "
        "alike its auxiliary heads, which learn from others, are better: --exam common asks the last of them"
        if curve.head == "main head"
        else f"{curve.method} answers with {curve.head}, which learns from others, not with its main head"
        for curve in played
        if curve.head
    ]


# ---- what came of it -------------------------------------------------------------------------------------------------


def budgets(curves: Sequence[Curve]) -> tuple[float, ...]:
    """Round numbers of bytes that tell the methods apart: powers of ten from what the cheapest spends to what the
    dearest does, CUTS of them at most, and none for which no method has learnt anything yet; the next above them where
    that leaves none. Methods that hardly say anything are left aside."""
    heard = [curve for curve in curves if curve.runs and curve.method != "isolated"]
    if not heard:
        return ()
    spent = [curve.bytes[-1] for curve in heard]
    low, high = math.floor(math.log10(max(1.0, min(spent)))), math.ceil(math.log10(max(10.0, max(spent))))
    enough = min(curve.bytes[0] for curve in heard)
    found = tuple(10.0**power for power in range(max(low, high - CUTS), high) if 10.0**power >= enough)
    return found[-CUTS:] or (10.0 ** (low if 10.0**low >= enough else high),)


HEADS_BYTES = ("method", "", "spent")
HEADS_TIME = ("method", "", "rounds", "age", "spent")


def by_bytes(curves: Sequence[Curve], cuts: Sequence[float], exam: str) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of equal bytes, the best at the largest budget first."""
    heads = [*HEADS_BYTES[:2], *(f"for {size(cut)}" for cut in cuts), HEADS_BYTES[2]]
    played = [curve for curve in curves if curve.runs]
    played.sort(key=lambda curve: [-(curve.for_bytes(cut, exam) or 0.0) for cut in reversed(cuts)])
    return heads, [
        [curve.method, _kind(curve), *(percent(curve.for_bytes(cut, exam)) for cut in cuts), size(curve.bytes[-1])]
        for curve in played
    ]


def by_time(curves: Sequence[Curve], exam: str) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of equal time, the best at the end first."""
    played = [curve for curve in curves if curve.runs]
    if not played:
        return [], []
    times = [part * played[0].at_s[-1] for part in TIMES]
    heads = [*HEADS_TIME[:2], *(f"after {brief(at_s)}" for at_s in times), *HEADS_TIME[2:]]
    played.sort(key=lambda curve: -(curve.in_time(times[-1], exam) or 0.0))
    return heads, [
        [
            curve.method,
            _kind(curve),
            *(percent(curve.in_time(at_s, exam)) for at_s in times),
            "-" if not curve.rounds else f"{curve.rounds:.0f}",
            brief(curve.age_s),
            size(curve.bytes[-1]),
        ]
        for curve in played
    ]


def _kind(curve: Curve) -> str:
    return "control" if METHODS[curve.method].control else ""


# ---- pictures --------------------------------------------------------------------------------------------------------


def draw(curves: Sequence[Curve], title: str, exam: str, folder: Path) -> list[Path]:
    """Accuracy against bytes and against time, as PICTURES in `folder`; nothing where nothing was played.

    Raises NoPicture.
    """
    played = [curve for curve in curves if curve.runs]
    if not played:
        return []
    played.sort(key=lambda curve: -(curve.in_time(math.inf, exam) or 0.0))  # the legend, as the table of equal time
    end_s = max(curve.at_s[-1] for curve in played)
    unit_s, unit = time_unit(end_s)
    drawn = []
    for name, x, label in (
        (PICTURES[0], lambda curve: curve.bytes, "MQTT bytes of a device so far, sent and received"),
        (PICTURES[1], lambda curve: [at / unit_s for at in curve.at_s], f"virtual time, {unit}"),
    ):
        figure = canvas((11.0, 6.2))
        axes = figure.subplots()
        _lines(axes, played, x, exam)
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xlabel(label)
        axes.set_ylabel("samples recognised, %" + (" (each device's own mix)" if exam == "own" else " (all alike)"))
        if name == PICTURES[0]:
            bytes_axis(axes, [value for curve in played for value in curve.bytes])
        tidy(axes)
        figure.legend(loc="outside right upper", frameon=False, fontsize=9, title="broken lines: controls")
        drawn.append(saved(figure, folder / name))
    return drawn


def _lines(axes: Axes, curves: Sequence[Curve], x: Callable[[Curve], Sequence[float]], exam: str) -> None:
    """A line for each method: ours solid and broad, controls broken and thin."""
    groups = {control: [name for name, each in METHODS.items() if each.control is control] for control in (False, True)}
    for curve in curves:
        ours = not METHODS[curve.method].control
        place = groups[not ours].index(curve.method)
        colour, style = COLOURS[place % len(COLOURS)], "-" if ours else ("--", ":", "-.")[place // len(COLOURS) % 3]
        y = [100 * value for value in curve.accuracy[exam]]
        label = curve.title.replace("_", " ").replace(" (", "\n(")
        axes.plot(x(curve), y, color=colour, linewidth=2.6 if ours else 1.4, linestyle=style, label=label)
        axes.plot(x(curve)[-1:], y[-1:], "o", color=colour, markersize=5)
