"""Which method for a site: closed formulas first, then a short simulation of those that fit, then one recommendation.

A plan starts from a scenario (`sim.scenario`): how many devices of which boards, which data, model, graph and links.
`sim.estimate` says in closed form what each method costs and how often it may run. Methods that fit are played on a
sample of the data, each with its own period, for the same virtual time. The most accurate is recommended; among those
that the examination cannot tell from it (`sim.evidence`), the one with the fewest bytes. Of what comes out first and
second, what trains a model is played LONGER, for what is right for an hour may fall in a day.

Methods that train a model tell it every round, so their bytes are those of the second half, by time. Methods that
learn prototypes speak when there is news, so what they send in a day depends on the samples of that day: for them the
last rows arrive one after another, as far apart as in such a day, but not farther than the silence after which they
speak all the same (then every row is a matter of its own), and then none for a while. What these rows cost beyond that
silence counts by samples, the silence by time, and nothing beyond the bound of the closed formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.agent.settings import GraphConfig
from edgeswarm.errors import ConfigError, EdgeswarmError
from edgeswarm.maths.graphs import Graph
from edgeswarm.models.file import Model
from edgeswarm.readable import percent, size, span
from edgeswarm.sim.data import DataSet
from edgeswarm.sim.estimate import NOBODY, Demand, Estimate, Place, estimates
from edgeswarm.sim.evaluation import answered
from edgeswarm.sim.evidence import Answers, error, worth
from edgeswarm.sim.methods import GOALS, by_rule
from edgeswarm.sim.outcome import Outcome
from edgeswarm.sim.report import day_bytes
from edgeswarm.sim.run import run
from edgeswarm.sim.scenario import Scenario, changed
from edgeswarm.sim.stage import Stage, prepare
from edgeswarm.sim.traffic import DAY_S
from edgeswarm.sim.world import World
from edgeswarm.strategies import STRATEGIES
from edgeswarm.strategies.base import wants_model

TIE, ERRORS = 0.01, 2.0
"""Accuracies that differ by less are the same: a share that nobody misses, and standard errors of the difference."""
SAME_BYTES = 1.05
"""Traffic that differs by less is the same."""
ROUNDS, MOST_ROUNDS = 60, 120
"""Rounds that a simulation gives the method with the longest period, and at most any other."""
LONGER = 5
"""Times as long, for what is to be recommended."""
EARLY, FEWEST, MOST = 6, 24, 120
"""Periods in which a method that speaks when there is news gets its first rows, and the fewest and the most in which
the last rows arrive one by one."""
SINGLE = 32
"""Rows of a device that arrive one by one, if these periods allow it."""
NODES, SAMPLE_ROWS = 12, 4_000
"""Devices and rows that it plays with, at most."""


@dataclass(frozen=True)
class Played:
    """What the simulation measured; bytes of a device in a day, sent and received, without those of the start, with the
    period of the estimate.

    answers: by goal, what the devices answered at the end, as `sim.evidence.worth`.  period_s: that it was played with.
    short: by goal, the accuracy before it was played LONGER; empty where it was not.
    news_bytes: what a sample costs.  quiet_bytes: a day without samples.  notes: what its reader should know.
    """

    accuracy_own: float
    accuracy_common: float
    day_bytes: float
    age_s: float | None
    rounds: float
    wall_s: float
    answers: Mapping[str, Answers] = field(repr=False, compare=False)
    period_s: float = 0.0
    short: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    news_bytes: float = 0.0
    quiet_bytes: float = 0.0

    def accuracy(self, goal: str) -> float:
        """Of the kind that is asked for."""
        return self.accuracy_own if goal == "own" else self.accuracy_common

    def error(self, other: Played, goal: str) -> float:
        """Standard error of the difference of their accuracies."""
        return error(self.answers[goal], other.answers[goal])

    def tie(self, other: Played, goal: str) -> float:
        """The largest difference of their accuracies that counts as none."""
        return max(TIE, ERRORS * self.error(other, goal))


@dataclass(frozen=True)
class Plan:
    """choice: the method to take; next_best: the second, "" without one.  reasons: sentences with the figures.

    failed: methods that could not be played, and why.  duration_s: virtual time that each was played for.
    over: methods that took more traffic when played than the limit allows, although by formula they fit.
    goal: which accuracy counts.
    """

    estimates: tuple[Estimate, ...]
    played: Mapping[str, Played]
    choice: str
    next_best: str
    reasons: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    duration_s: float = 0.0
    over: tuple[str, ...] = ()
    goal: str = "common"

    @property
    def examined_rows(self) -> int:
        """Rows of the examination, the same for all methods and devices; 0 where nothing was played."""
        return next((each.answers[self.goal].shape[1] for each in self.played.values()), 0)

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
                "played": self._measured(each.method) if each.method in self.played else None,
                "failed": self.failed.get(each.method, ""),
                "over": each.method in self.over,
            }
        return {"choice": self.choice, "next_best": self.next_best, "reasons": list(self.reasons),
                "duration_s": self.duration_s, "examined_rows": self.examined_rows, "methods": rows}  # fmt: skip

    def _measured(self, method: str) -> dict[str, Any]:
        """error: of its difference to what is recommended."""
        each = self.played[method]
        found = {key: value for key, value in vars(each).items() if key != "answers"}
        return {**found, "error": each.error(self.played[self.choice], self.goal)}


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
    fitting = {each.method: each for each in found if not each.refused}
    longest_s = max((each.period_s for each in fitting.values()), default=0.0)
    stand = _stand(place, demand, data, backend, longest_s * ROUNDS)
    nodes = stand.scenario.swarm.nodes
    played: dict[str, Played] = {}
    failed: dict[str, str] = {}

    def attempt(method: str, times: int) -> None:
        try:
            played[method] = _played(stand, fitting[method], times, played.get(method))
        except EdgeswarmError as error:
            played.pop(method, None)
            failed[method] = str(error)

    for number, method in enumerate(fitting, 1):
        time = f"{span(stand.duration_s)} of virtual time" if _rounds(method) else "its last rows one by one"
        tell(f"{number} of {len(fitting)}: {method}, {time} with {nodes} devices")
        attempt(method, 1)
    while leading := [name for name in _ranked(played, demand)[:2] if _rounds(name) and not played[name].short]:
        tell(f"{leading[0]} once more, {LONGER} times as long")
        attempt(leading[0], LONGER)
    return played, failed, stand.duration_s


def _rounds(method: str) -> bool:
    """It trains a model, and tells it every round, whether there is news or not."""
    return wants_model(STRATEGIES[method])


@dataclass(frozen=True)
class _Stand:
    """What methods are played on. duration_s: for how long those that train a model are."""

    scenario: Scenario
    data: DataSet
    backend: str
    demand: Demand
    duration_s: float


def _stand(place: Place, demand: Demand, data: DataSet, backend: str, duration_s: float) -> _Stand:
    """Raises ConfigError: the model that is given does not fit the samples."""
    scenario = place.scenario
    if scenario.model.path:  # one that does not fit the samples is nobody's choice
        model_for(scenario, "d_psgd", data, backend)
    few = _few(scenario)
    nodes = few.swarm.nodes
    graph = scenario.graph if nodes == scenario.swarm.nodes else smaller(scenario.graph, place.graph, nodes)
    rows = _sample(_fewer_files(data, scenario), scenario.swarm.seed)
    return _Stand(replace(few, graph=graph), rows, backend, demand, duration_s)


def _played(stand: _Stand, each: Estimate, times: int, before: Played | None) -> Played:
    """times: as long as others.  before: what came of it when it was played for a shorter time."""
    return _with_rounds(stand, each, times, before) if _rounds(each.method) else _with_news(stand, each)


def _with_rounds(stand: _Stand, each: Estimate, times: int, before: Played | None) -> Played:
    period_s = max(each.period_s, stand.duration_s / MOST_ROUNDS)
    end_s = stand.duration_s * times
    outcome, answers = _run(stand, each, period_s, (end_s / 2, end_s))  # the first half has the start in it
    of_day = day_bytes(outcome) * period_s / each.period_s
    notes = outcome.notes
    if period_s > each.period_s:
        said = f"played every {span(period_s)} instead of every {span(each.period_s)}, for the time of the slowest"
        notes = (*notes, f"{said}: it was given fewer rounds; its bytes are those of its own period")
    short = {goal: before.accuracy(goal) for goal in GOALS} if before is not None else {}
    return _measured(outcome, answers, min(of_day, each.day_bytes) if each.most else of_day, period_s,
                     short=short, notes=notes)  # fmt: skip


def _with_news(stand: _Stand, each: Estimate) -> Played:
    """Of a method that speaks when there is news; see the module."""
    method = STRATEGIES[each.method](**each.settings)
    period_s = each.period_s
    silence_s = getattr(method, "silence_limit_s", period_s)  # after so long a one it repeats itself
    apart_s = min(DAY_S / stand.demand.samples_per_day, silence_s)
    window_s = min(max(SINGLE * apart_s, FEWEST * period_s), MOST * period_s)
    early_s = EARLY * period_s
    last_s = early_s + window_s
    still_s = last_s + silence_s + EARLY * period_s
    looks_s = (early_s + window_s / 3, last_s, still_s, still_s + max(silence_s, FEWEST * period_s))
    counts: list[int] = []

    def arrivals(rows: int) -> NDArray[np.float64]:
        """When each of a device's rows comes."""
        single = min(rows, int(window_s / apart_s))
        early = np.arange(1, rows - single + 1)
        groups = np.ceil(2 * EARLY * early / max(1, len(early)))  # some at a time, as a device learns what has waited
        times_s = np.concatenate([groups / (2 * EARLY) * early_s, last_s - apart_s * np.arange(single)[::-1]])
        counts.append(int(((times_s > looks_s[0]) & (times_s <= looks_s[1])).sum()))
        return times_s

    outcome, answers = _run(stand, each, period_s, looks_s, arrivals)
    return _of_the_day(outcome, answers, each, stand.demand.samples_per_day, sum(counts) / len(counts))


def _run(
    stand: _Stand, each: Estimate, period_s: float, looks_s: tuple[float, ...],
    arrivals: Callable[[int], NDArray[np.float64]] | None = None,
) -> tuple[Outcome, dict[str, Answers]]:  # fmt: skip
    """Play a method until the last of `looks_s`, when it is examined. arrivals: times of so many rows of a device; all
    at the start without it. Raises EdgeswarmError."""
    knobs = {f"strategy.{key}": value for key, value in {**each.settings, "period_s": period_s}.items()}
    said = {"strategy.name": each.method, **knobs, "swarm.duration_s": looks_s[-1], "report.at_s": list(looks_s)}
    kept: list[tuple[World, Stage]] = []

    def arranged(world: World, stage: Stage) -> None:
        kept.append((world, stage))
        if arrivals is not None:
            for node in world.nodes.values():
                times_s: Any = arrivals(len(node.stream.y))
                node.stream = replace(node.stream, times_s=times_s)

    outcome = run(changed(stand.scenario, said), backend=stand.backend, data=stand.data, arranged=arranged)
    world, stage = kept[0]
    agents = {name: node.agent for name, node in world.nodes.items()}
    return outcome, worth(stage.exam, answered(agents, stage.exam, stage.backend))


def model_for(scenario: Scenario, method: str, data: DataSet, backend: str = "auto") -> Model | None:
    """What devices would train, the one that a simulation of the same scenario has: the model that is given, or a
    perceptron with mean and spread of `data` in it. None where the method trains none.

    Raises ConfigError, DataError, ModelError, one line.
    """
    chosen = changed(replace(_few(scenario), graph=GraphConfig()), {"strategy.name": method})
    return prepare(chosen, _fewer_files(data, scenario), backend).model


def _few(scenario: Scenario) -> Scenario:
    """The scenario with NODES devices at most, all samples there at the start, and nothing that happens to a device."""
    swarm = scenario.swarm
    few = swarm if swarm.nodes <= NODES else replace(swarm, nodes=NODES, names=())
    return replace(scenario, swarm=few, data=replace(scenario.data, rate_per_s=0.0), events=())


def _fewer_files(data: DataSet, scenario: Scenario) -> DataSet:
    """The first NODES of the devices' own files, where there are more devices."""
    if scenario.swarm.nodes <= NODES or not data.parts:
        return data
    return replace(data, parts=dict(sorted(data.parts.items())[:NODES]))


def smaller(table: GraphConfig, graph: Graph, nodes: int) -> GraphConfig:
    """A graph of the same kind for fewer devices; where there is none, a random one of the same mean degree."""
    if table.kind not in ("edges", "dyck", "regular"):
        return replace(table, names=())
    degree = min(nodes - 1, round(float(graph.degrees().mean())))
    degree += nodes * degree % 2 if degree < nodes - 1 else 0
    return replace(table, kind="regular", names=(), file="", degree=max(2, degree))


def _sample(data: DataSet, seed: int) -> DataSet:
    """SAMPLE_ROWS of the rows at most, and of the files of the devices alone, where these have such."""
    rows = np.sort(np.concatenate(list(data.parts.values()))) if data.parts else np.arange(len(data.y))
    if len(rows) > SAMPLE_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, SAMPLE_ROWS, replace=False))
    parts = {name: np.flatnonzero(np.isin(rows, places)) for name, places in data.parts.items()}
    return replace(data, x=data.x[rows], y=tuple(data.y[row] for row in rows.tolist()), parts=parts)


def _of_the_day(
    outcome: Outcome, answers: Mapping[str, Answers], each: Estimate, samples_per_day: float, arrived: float
) -> Played:
    """arrived: rows of a device between the first examination and the second; between the third and the last it is
    silent."""
    counts = [
        sum(outcome.mean(key, at) or 0.0 for key in ("bytes_sent", "bytes_received")) for at in (0, 1, 2, 3)
    ]  # fmt: skip
    passed_s, silent_s = (outcome.at_s[at + 1] - outcome.at_s[at] for at in (0, 2))
    quiet_per_s = (counts[3] - counts[2]) / silent_s
    news_bytes = max(0.0, counts[1] - counts[0] - quiet_per_s * passed_s) / arrived if arrived else 0.0
    quiet_bytes = quiet_per_s * DAY_S
    of_day = min(max(quiet_bytes, each.day_bytes), quiet_bytes + samples_per_day * news_bytes)
    return _measured(outcome, answers, of_day, each.period_s, news_bytes=news_bytes, quiet_bytes=quiet_bytes)


def _measured(outcome: Outcome, answers: Mapping[str, Answers], of_day: float, period_s: float, **more: Any) -> Played:
    """The age of information is that of the second examination, the last of methods with rounds."""
    found: dict[str, Any] = {"notes": outcome.notes, "quiet_bytes": of_day, **more}
    return Played(
        outcome.accuracy or 0.0, outcome.accuracy_common or 0.0, of_day, outcome.mean("age_s", 1),
        outcome.mean("rounds") or 0.0, outcome.wall_s, answers, period_s, **found,
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
    ranked = _ranked(played, demand)
    choice, next_best = ranked[0], ranked[1] if len(ranked) > 1 else ""
    reasons = _reasons(ranked, found, played, demand, duration_s)
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
    if place.scenario.events:
        reasons += ("note: nothing is simulated of [[event]]: the devices of a plan are always there",)
    if place.scenario.swarm.nodes > NODES:
        reasons += (f"it was played with {NODES} of {place.scenario.swarm.nodes:,} devices, so its bytes are theirs",)
    return Plan(found, played, choice, next_best, reasons, failed, duration_s, over, demand.goal)


def _ranked(played: Mapping[str, Played], demand: Demand) -> list[str]:
    """Best first: of the most accurate of those that are left and what ties with it, the one with the fewest bytes.

    A few bytes in a hundred beyond the limit are no reason to leave a method out; where all take more, the fewest bytes
    come first.
    """
    goal, ranked = demand.goal, []
    left = {name: each for name, each in played.items() if each.day_bytes <= demand.traffic_bytes * SAME_BYTES}
    while left:
        most = max(left.values(), key=lambda each: each.accuracy(goal))
        least = {name: most.accuracy(goal) - most.tie(each, goal) for name, each in left.items()}
        equal = [name for name, each in left.items() if each.accuracy(goal) >= least[name]]
        fewest = min(left[name].day_bytes for name in equal)
        cheap = [name for name in equal if left[name].day_bytes <= fewest * SAME_BYTES]
        best = max(cheap, key=lambda name: left[name].accuracy(goal))
        ranked.append(best)
        left.pop(best)
    return ranked or sorted(played, key=lambda name: played[name].day_bytes)


def _reasons(
    ranked: list[str], found: tuple[Estimate, ...], played: Mapping[str, Played], demand: Demand, duration_s: float
) -> tuple[str, ...]:
    goal, choice = demand.goal, ranked[0]
    best = played[choice]
    said = [
        f"with {choice} a device recognises {percent(best.accuracy(goal))} ({GOALS[goal]}) "
        f"for {size(best.day_bytes)} a day"
    ]
    alone = played.get("isolated")
    if alone is not None and choice != "isolated":
        said.append(f"a device that learns alone recognises {percent(alone.accuracy(goal))}")
    elif any(each.refused == NOBODY for each in found):
        said.append(NOBODY)
    elif choice == "isolated":
        said.append("nothing is better than learning alone by more than a tie, and that costs next to nothing")
    most = max(ranked, key=lambda name: played[name].accuracy(goal))
    if most not in ranked[:2]:
        said.append(f"the most accurate: {most}, {_against(best, played[most], goal)}")
    if len(ranked) > 1:
        said.append(f"next best: {ranked[1]}, {_against(best, played[ranked[1]], goal)}")
    for name in ranked[:2]:
        if (short := played[name].short.get(goal)) is not None:
            said.append(
                f"{name} is as after {span(LONGER * duration_s)}; after {span(duration_s)} it was {percent(short)}"
            )
    mine = next(each for each in found if each.method == choice)
    if mine.limited_by == "traffic" and "budget_bytes_per_s" in mine.settings:
        said.append(f"its budget of {mine.settings['budget_bytes_per_s']:g} bytes/s is set by traffic, not its period")
    elif mine.limited_by:
        said.append(f"its period of {mine.period_s:g} s is set by {mine.limited_by}")
    return (*said, *_unfit(found))


def _against(best: Played, other: Played, goal: str) -> str:
    """What `other` is, next to what is recommended."""
    points = best.accuracy(goal) - other.accuracy(goal)
    less = f"{100 * abs(points):.1f} points {'less' if points > 0 else 'more'}"
    if abs(points) <= (tie := best.tie(other, goal)):
        rows = f"{other.answers[goal].shape[1]:,} rows"
        less += f", a tie (with {rows} {100 * tie:.1f} points or less say nothing),"
    return f"{less} for {size(other.day_bytes)}"


def _unfit(found: tuple[Estimate, ...]) -> list[str]:
    return [f"{each.method} does not fit: {each.refused}" for each in found if each.refused and each.refused != NOBODY]


def _by_rule(found: tuple[Estimate, ...], demand: Demand, failed: Mapping[str, str]) -> Plan:
    """Without a simulation."""
    fits = {each.method: each for each in found if not each.refused}
    rule = by_rule(demand.goal)
    order = [name for name in rule if name in fits] or list(fits)
    choice, next_best = order[0], order[1] if len(order) > 1 else ""
    said = [f"by rule, nothing was simulated: {choice} is the first that fits of {', '.join(rule)}"]
    if any(each.refused == NOBODY for each in found):
        said = [NOBODY]
    said += _unfit(found)
    said += [f"{name} could not be played: {why}" for name, why in failed.items()]
    return Plan(found, {}, choice, next_best, tuple(said), failed, goal=demand.goal)
