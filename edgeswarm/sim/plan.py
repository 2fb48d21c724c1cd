"""Which method for a site: closed formulas first, then a short simulation of those that fit, then one recommendation.

A plan starts from a scenario (`sim.scenario`): how many devices of which boards, which data, model, graph and links.
`sim.estimate` says in closed form what each method costs and how often it may run. Methods that fit are played on a
sample of the data, each with its own period, for the same virtual time. The most accurate is recommended; among those
that are as good, the one with the fewest bytes.

Methods that train a model tell it every round, so their bytes are those of the second half, by time. Methods that
learn prototypes speak when there is news, so what they send in a day depends on the samples of that day: for them the
rows at hand arrive one after another, as far apart as in such a day, but not farther than the silence after which they
speak all the same (then every row is a matter of its own), and then none for a while. What the second half of the rows
costs beyond that silence counts by samples, the silence by time, and nothing beyond the bound of the closed formula.
Where rows are far apart they look for news LOOKS times a row instead of once a period, which saves computing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np

from edgeswarm.agent.settings import GraphConfig
from edgeswarm.errors import ConfigError, EdgeswarmError
from edgeswarm.maths.graphs import Graph
from edgeswarm.models.file import Model
from edgeswarm.sim.data import DataSet
from edgeswarm.sim.estimate import DAY_S, NOBODY, Demand, Estimate, Place, estimates
from edgeswarm.sim.outcome import Outcome
from edgeswarm.sim.report import day_bytes, size
from edgeswarm.sim.run import run
from edgeswarm.sim.scenario import Scenario, changed
from edgeswarm.sim.stage import prepare
from edgeswarm.strategies import STRATEGIES
from edgeswarm.strategies.base import wants_model

TIE = 0.01
"""Accuracies that differ by less are the same: the error of an examination of 2,000 rows."""
SAME_BYTES = 1.05
"""Traffic that differs by less is the same."""
ROUNDS, MOST_ROUNDS = 60, 240
"""Rounds that a simulation gives the method with the longest period, and at most any other."""
LOOKS = 2
"""Of a method that speaks when there is news, for every row where these are far apart."""
NODES, SAMPLE_ROWS = 12, 4_000
"""Devices and rows that it plays with, at most."""

BY_RULE = {
    "common": ("global_update_tracking", "d_psgd", "multi_headed_distillation", "prototype_gossip", "isolated"),
    "own": ("gatta", "multi_headed_distillation", "prototype_gossip", "isolated"),
}
"""What is recommended without a simulation: the first that fits, by what is to be recognised."""
GOALS = tuple(BY_RULE)


@dataclass(frozen=True)
class Played:
    """What the simulation measured; bytes of a device in a day, sent and received, without those of the start.

    news_bytes: what a sample costs.  quiet_bytes: a day without samples.  notes: what its reader should know.
    """

    accuracy_own: float
    accuracy_common: float
    day_bytes: float
    age_s: float | None
    rounds: float
    wall_s: float
    notes: tuple[str, ...] = ()
    news_bytes: float = 0.0
    quiet_bytes: float = 0.0

    def accuracy(self, goal: str) -> float:
        """Of the kind that is asked for."""
        return self.accuracy_own if goal == "own" else self.accuracy_common


@dataclass(frozen=True)
class Plan:
    """choice: the method to take; next_best: the second, "" without one.  reasons: sentences with the figures.

    failed: methods that could not be played, and why.  duration_s: virtual time that each was played for.
    over: methods that took more traffic when played than the limit allows, although by formula they fit.
    """

    estimates: tuple[Estimate, ...]
    played: Mapping[str, Played]
    choice: str
    next_best: str
    reasons: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    duration_s: float = 0.0
    over: tuple[str, ...] = ()

    def estimate(self, method: str) -> Estimate:
        """Of that method."""
        return next(each for each in self.estimates if each.method == method)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        rows = {}
        for each in self.estimates:
            row = asdict(each)
            row.pop("method")
            rows[each.method] = {
                **row,
                "day_bytes": each.day_bytes,
                "played": asdict(self.played[each.method]) if each.method in self.played else None,
                "failed": self.failed.get(each.method, ""),
                "over": each.method in self.over,
            }
        return {"choice": self.choice, "next_best": self.next_best, "reasons": list(self.reasons),
                "duration_s": self.duration_s, "methods": rows}  # fmt: skip


# ---- the simulation -------------------------------------------------------------------------------------------------


def play(
    found: tuple[Estimate, ...],
    place: Place,
    demand: Demand,
    data: DataSet,
    backend: str = "auto",
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, Played], dict[str, str], float]:
    """Play each method that fits, on SAMPLE_ROWS of `data`.

    demand: how many samples a day has, for the traffic.  tell: called with a line before each.

    Returns: what was measured, why others could not be played, and the virtual time of methods that train. Raises
    ConfigError: the model that is given does not fit the samples.
    """
    scenario = place.scenario
    fitting = [each for each in found if not each.refused]
    longest_s = max((each.period_s for each in fitting), default=0.0)
    duration_s = longest_s * ROUNDS
    played: dict[str, Played] = {}
    failed: dict[str, str] = {}
    data = _sample(data, scenario.swarm.seed)
    if scenario.model.path:  # one that does not fit the samples is nobody's choice
        model_for(scenario, "d_psgd", data, backend)
    few = _few(scenario)
    nodes = few.swarm.nodes
    graph = scenario.graph if nodes == scenario.swarm.nodes else smaller(scenario.graph, place.graph, nodes)
    few = replace(few, graph=graph)
    for number, each in enumerate(fitting, 1):
        news = bool(each.told) and not wants_model(STRATEGIES[each.method])
        time = "the rows one by one" if news else f"{duration_s:,.0f} s of virtual time"
        tell(f"{number} of {len(fitting)}: {each.method}, {time} with {nodes} devices")
        try:
            if news:
                played[each.method] = _with_news(few, each, demand, data, backend)
                continue
            period_s = max(each.period_s, duration_s / MOST_ROUNDS)
            outcome = run(_set(few, each, period_s, duration_s, duration_s / 2), backend=backend, data=data)
            played[each.method] = _played(outcome, 1, day_bytes(outcome))  # the first half has the start in it
        except EdgeswarmError as error:
            failed[each.method] = str(error)
    return played, failed, duration_s


def _with_news(few: Scenario, each: Estimate, demand: Demand, data: DataSet, backend: str) -> Played:
    """Of a method that speaks when there is news; see the module. Raises EdgeswarmError."""
    method = STRATEGIES[each.method](**each.settings)
    silence_s = getattr(method, "silence_limit_s", method.period_s)  # after so long a one it repeats itself
    parts = prepare(changed(few, {"strategy.name": each.method}), data, backend).parts
    rows = np.array([len(part) for part in parts.values()])
    apart_s = min(DAY_S / demand.samples_per_day, silence_s)
    half = float(rows.max()) / 2
    half_s = max(apart_s * half, silence_s / 4)  # no finer, for every examination takes time
    silence, steady = (ceil(count * silence_s / half_s) for count in (3, 2))  # two are looked at, after a first
    told = _set(few, each, max(each.period_s, apart_s / LOOKS), (2 + silence) * half_s, half_s)
    outcome = run(changed(told, {"data.rate_per_s": half / half_s}), backend=backend, data=data)
    arrived = float(np.clip(rows - half, 0.0, None).mean())
    return _of_the_day(outcome, each, demand.samples_per_day, arrived, steady)


def _set(few: Scenario, each: Estimate, period_s: float, duration_s: float, every_s: float) -> Scenario:
    """The scenario with that method. Raises ConfigError."""
    knobs = {f"strategy.{key}": value for key, value in {**each.settings, "period_s": period_s}.items()}
    return changed(
        few, {"strategy.name": each.method, **knobs, "swarm.duration_s": duration_s, "report.every_s": every_s}
    )


def model_for(scenario: Scenario, method: str, data: DataSet, backend: str = "auto") -> Model | None:
    """What devices would train, the one that a simulation of the same scenario has: the model that is given, or a
    perceptron with mean and spread of `data` in it. None where the method trains none.

    Raises ConfigError, DataError, ModelError, one line.
    """
    chosen = changed(replace(_few(scenario), graph=GraphConfig()), {"strategy.name": method})
    return prepare(chosen, data, backend).model


def _few(scenario: Scenario) -> Scenario:
    """The scenario with NODES devices at most, and nothing that happens to one of them."""
    swarm = scenario.swarm
    few = swarm if swarm.nodes <= NODES else replace(swarm, nodes=NODES, names=())
    return replace(scenario, swarm=few, events=())


def smaller(table: GraphConfig, graph: Graph, nodes: int) -> GraphConfig:
    """A graph of the same kind for fewer devices; where there is none, a random one of the same mean degree."""
    if table.kind not in ("edges", "dyck", "regular"):
        return replace(table, names=())
    degree = min(nodes - 1, round(float(graph.degrees().mean())))
    degree += nodes * degree % 2 if degree < nodes - 1 else 0
    return replace(table, kind="regular", names=(), file="", degree=max(2, degree))


def _sample(data: DataSet, seed: int) -> DataSet:
    if len(data.y) <= SAMPLE_ROWS:
        return data
    rows = np.sort(np.random.default_rng(seed).choice(len(data.y), SAMPLE_ROWS, replace=False))
    return replace(data, x=data.x[rows], y=tuple(data.y[row] for row in rows.tolist()))


def _of_the_day(outcome: Outcome, each: Estimate, samples_per_day: float, arrived: float, steady: int) -> Played:
    """arrived: rows of a device between the first examination and the second.  steady: examinations that the end of the
    silence takes."""
    counts = [
        sum(outcome.mean(key, at) or 0.0 for key in ("bytes_sent", "bytes_received"))
        for at in (0, 1, -1 - steady, -1)
    ]  # fmt: skip
    times_s = [outcome.at_s[at] for at in (0, 1, -1 - steady, -1)]
    quiet_per_s = (counts[3] - counts[2]) / (times_s[3] - times_s[2])
    news_bytes = max(0.0, counts[1] - counts[0] - quiet_per_s * (times_s[1] - times_s[0])) / arrived if arrived else 0.0
    quiet_bytes = quiet_per_s * DAY_S
    bound = max(quiet_bytes, each.day_bytes)
    return _played(outcome, 1, min(bound, quiet_bytes + samples_per_day * news_bytes), news_bytes, quiet_bytes)


def _played(
    outcome: Outcome, at: int, bytes_of_day: float, news_bytes: float = 0.0, quiet: float | None = None
) -> Played:
    """at: the examination of which the age of information is."""
    return Played(
        outcome.accuracy or 0.0, outcome.accuracy_common or 0.0, bytes_of_day, outcome.mean("age_s", at),
        outcome.mean("rounds") or 0.0, outcome.wall_s, outcome.notes, news_bytes,
        bytes_of_day if quiet is None else quiet,
    )  # fmt: skip


# ---- the recommendation ---------------------------------------------------------------------------------------------


def plan(
    place: Place,
    demand: Demand,
    data: DataSet | None = None,
    backend: str = "auto",
    tell: Callable[[str], None] = lambda text: None,
) -> Plan:
    """Formulas, simulation and recommendation. data: what to simulate with, None for formulas alone.

    Raises ConfigError: nothing fits, not even learning alone; or the scenario's own method cannot work on its graph.
    """
    found = estimates(place, demand)
    if all(each.refused for each in found):
        raise ConfigError(f"no method fits: {found[0].method} does not, because {found[0].refused}")
    played, failed, duration_s = play(found, place, demand, data, backend, tell) if data is not None else ({}, {}, 0.0)
    if not played:
        return _by_rule(found, demand, failed)
    over = tuple(name for name, each in played.items() if each.day_bytes > demand.traffic_bytes)
    # a few bytes in a hundred beyond the limit are no reason to leave a method out, but one to say so
    within = {name: each for name, each in played.items() if each.day_bytes <= demand.traffic_bytes * SAME_BYTES}
    ranked = _ranked(within, demand.goal) or sorted(played, key=lambda name: played[name].day_bytes)
    choice, next_best = ranked[0], ranked[1] if len(ranked) > 1 else ""
    reasons = _reasons(choice, next_best, found, played, demand)
    reasons += tuple(f"{name} could not be played: {why}" for name, why in failed.items())
    reasons += tuple(
        f"{name} took {size(played[name].day_bytes)} a day when simulated, more than the limit of "
        f"{size(demand.traffic_bytes)}{'' if name in ranked else ': left out'}"
        for name in over
    )  # fmt: skip
    notes: dict[str, list[str]] = {}
    for name, each in played.items():
        for note in each.notes:
            notes.setdefault(note, []).append(name)
    reasons += tuple(f"note: {note} ({', '.join(names)})" for note, names in notes.items())
    if place.scenario.swarm.nodes > NODES:
        reasons += (f"it was played with {NODES} of {place.scenario.swarm.nodes:,} devices, so its bytes are theirs",)
    return Plan(found, played, choice, next_best, reasons, failed, duration_s, over)


def _ranked(played: Mapping[str, Played], goal: str) -> list[str]:
    """Best first: within TIE of the most accurate of those that are left, the one with the fewest bytes."""
    left, ranked = dict(played), []
    while left:
        most = max(each.accuracy(goal) for each in left.values())
        equal = [name for name, each in left.items() if each.accuracy(goal) >= most - TIE]
        fewest = min(left[name].day_bytes for name in equal)
        cheap = [name for name in equal if left[name].day_bytes <= fewest * SAME_BYTES]
        best = max(cheap, key=lambda name: left[name].accuracy(goal))
        ranked.append(best)
        left.pop(best)
    return ranked


def _reasons(
    choice: str, next_best: str, found: tuple[Estimate, ...], played: Mapping[str, Played], demand: Demand
) -> tuple[str, ...]:
    goal, best = demand.goal, played[choice]
    what = "classes as each device sees them" if goal == "own" else "all classes alike"
    said = [
        f"with {choice} a device recognises {100 * best.accuracy(goal):.1f} % ({what}) for {size(best.day_bytes)} a day"
    ]
    alone = played.get("isolated")
    if alone is not None and choice != "isolated":
        said.append(f"a device that learns alone recognises {100 * alone.accuracy(goal):.1f} %")
    elif any(each.refused == NOBODY for each in found):
        said.append(NOBODY)
    elif choice == "isolated":
        said.append(
            f"no method is more than {100 * TIE:.0f} point better than learning alone, which costs next to nothing"
        )
    if next_best:
        other = played[next_best]
        points = 100 * (best.accuracy(goal) - other.accuracy(goal))
        less = f"{points:.1f} points less" if points > 0 else f"{-points:.1f} points more, which may be chance,"
        less = less if round(abs(points), 1) else "as good"
        said.append(f"next best: {next_best}, {less} for {size(other.day_bytes)}")
    mine = next(each for each in found if each.method == choice)
    if mine.limited_by == "traffic" and "budget_bytes_per_s" in mine.settings:
        said.append(f"its budget of {mine.settings['budget_bytes_per_s']:g} bytes/s is set by traffic, not its period")
    elif mine.limited_by:
        said.append(f"its period of {mine.period_s:g} s is set by {mine.limited_by}")
    return (*said, *_unfit(found))


def _unfit(found: tuple[Estimate, ...]) -> list[str]:
    return [f"{each.method} does not fit: {each.refused}" for each in found if each.refused and each.refused != NOBODY]


def _by_rule(found: tuple[Estimate, ...], demand: Demand, failed: Mapping[str, str]) -> Plan:
    """Without a simulation."""
    fits = {each.method: each for each in found if not each.refused}
    order = [name for name in BY_RULE[demand.goal] if name in fits] or list(fits)
    choice, next_best = order[0], order[1] if len(order) > 1 else ""
    said = [f"by rule, nothing was simulated: {choice} is the first that fits of {', '.join(BY_RULE[demand.goal])}"]
    if any(each.refused == NOBODY for each in found):
        said = [NOBODY]
    said += _unfit(found)
    said += [f"{name} could not be played: {why}" for name, why in failed.items()]
    return Plan(found, {}, choice, next_best, tuple(said), failed)
