"""What a method would cost at a site, in closed form: traffic, age of information, memory, time of a step.

For every method it looks for the shortest period that the boards, the links and the traffic allow, and says what that
comes to. Sources: bytes from `sim.traffic`, ages from `maths.age`, memory and time from `models.cost`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, inf, log10
from typing import Any

from edgeswarm.agent.profile import Profile, load_profile, speed
from edgeswarm.errors import ConfigError
from edgeswarm.maths.age import mean_age_paced
from edgeswarm.maths.graphs import Graph
from edgeswarm.models.card import ModelCard
from edgeswarm.models.cost import cost
from edgeswarm.sim.methods import CANDIDATES, METHODS, played_with
from edgeswarm.sim.scenario import Scenario
from edgeswarm.sim.traffic import DAY_S, answers, bids_bytes, predictions_bytes, prototypes_bytes, weights_bytes
from edgeswarm.strategies import STRATEGIES
from edgeswarm.strategies.base import on_graph, wants_model, wants_neighbours, wants_public
from edgeswarm.strategies.telling import ASKS

BUSY = 0.5
"""Part of the time that computing may take, and sending, and receiving."""
FEWEST_ROUNDS = 24.0
"""Rounds a day below which a method is of no use."""

SAMPLES_PER_DAY = 1_000.0
"""Of a device, where nobody says how many."""

NOBODY = "one device has nobody to share with"
"""Why nothing fits one device but learning alone."""


@dataclass(frozen=True, slots=True)
class Demand:
    """traffic_bytes: most that a device may send and receive in a day.  goal: "common", every device is to recognise
    all classes alike; "own", each those that it sees, as often as it sees them.  samples_per_day: labelled ones of a
    device, which decide what methods send that speak when there is news."""

    traffic_bytes: float = inf
    goal: str = "common"
    samples_per_day: float = SAMPLES_PER_DAY


@dataclass(frozen=True, slots=True)
class Told:
    """Something that a device publishes again and again. most: it is often less."""

    what: str
    size_bytes: int
    every_rounds: float
    most: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """One method, in closed form. settings: what it is planned with; period_s: between two rounds.

    sent_bytes, received_bytes: of a device in a day, as a mean over the devices; most: an upper bound.
    link_bytes: of what one device tells, in a day: what each who hears it receives.
    age_s: mean age of what a device knows of a neighbour; inf for one that hears nobody.
    memory_bytes, step_s: by board; None where nothing is known.  refused: why it does not fit, "" if it does.
    """

    method: str
    settings: Mapping[str, Any]
    told: tuple[Told, ...]
    period_s: float
    sent_bytes: float
    received_bytes: float
    link_bytes: float
    most: bool
    age_s: float
    memory_bytes: Mapping[str, int]
    step_s: Mapping[str, float | None]
    limited_by: str = ""
    refused: str = ""

    @property
    def day_bytes(self) -> float:
        """Sent and received."""
        return self.sent_bytes + self.received_bytes


@dataclass(frozen=True)
class Place:
    """What the formulas need to know. features: numbers in a row.  public_rows: of the public set.

    card: of the model that is shared; headed: with auxiliary heads, for methods that distil.
    """

    scenario: Scenario
    graph: Graph
    features: int
    classes: int
    card: ModelCard
    headed: ModelCard
    public_rows: int

    @cached_property
    def hops(self) -> int:
        """Diameter of the graph."""
        return self.graph.diameter()[0]

    def card_of(self, strategy: Any) -> ModelCard:
        """The model that this method trains."""
        return self.headed if wants_public(strategy) else self.card


def estimates(place: Place, demand: Demand) -> tuple[Estimate, ...]:
    """Of every candidate. Raises ConfigError: the scenario's own cannot work on its graph."""
    return tuple(_estimate(name, place, demand) for name in CANDIDATES)


def told(strategy: Any, place: Place) -> tuple[Told, ...]:
    """What one device publishes, per round of its own."""
    card, found = place.card_of(strategy), []
    if wants_public(strategy):
        heads = getattr(strategy, "ranks", 1) or card.heads
        size = predictions_bytes(
            place.public_rows, heads, place.classes, strategy.encoding, trusted=bool(strategy.gate)
        )
        found.append(Told("predictions", size, strategy.refresh_every, most=True))
        if strategy.bids:
            found.append(Told("bids", bids_bytes(place.public_rows), strategy.refresh_every, most=True))
    elif wants_model(strategy):
        head = card.size - card.body_size
        numbers = {"all": card.size, "body": card.body_size, "head": head, "track": card.size}
        for part in getattr(strategy, "PARTS", ()):
            scheme = getattr(strategy, "head_scheme", strategy.scheme) if part == "head" else strategy.scheme
            every = getattr(strategy, "body_every", 1) if part == "body" else 1
            size = weights_bytes(numbers[part], scheme, strategy.share, part, strategy.whole_every != 1)
            if strategy.whole_every > 1:
                size += round((weights_bytes(numbers[part], "float32", part=part) - size) / strategy.whole_every)
            found.append(Told(part, size, every))
    elif hasattr(strategy, "keep_limit"):
        size = prototypes_bytes(strategy.keep_limit, place.features, place.classes, strategy.vectors)
        found.append(Told("prototypes", size, 1.0, most=True))
    return tuple(found)


def _answered_bytes(strategy: Any, card: ModelCard, loss: float) -> float:
    """What a device gives one neighbour in a round, of what this one asks for; less with `snapshot_every` above 1."""
    if not getattr(strategy, "TELLS", False):
        return 0.0
    differences, asks = strategy.whole_every != 1, len(ASKS) if strategy.ask else 0
    scheme = "float32" if differences else strategy.scheme
    size = sum(weights_bytes(card.size, scheme, strategy.share, part) for part in strategy.PARTS)
    return size * answers(loss, asks, differences)


def _estimate(name: str, place: Place, demand: Demand) -> Estimate:
    scenario = place.scenario
    strategy, settings, unfit = _method(name, place, demand.goal)
    card = place.card_of(strategy)
    said = told(strategy, place)
    n = len(place.graph.names)
    degree = float(place.graph.degrees().mean())
    if not wants_neighbours(strategy):
        degree = n - 1.0
    sent = sum(each.size_bytes / each.every_rounds for each in said) if n > 1 else 0.0
    loss = scenario.network.loss
    answered = _answered_bytes(strategy, card, loss) if n > 1 else 0.0
    received = degree * (sent + answered) * (1.0 if any(each.most for each in said) else 1.0 - loss)
    answered *= degree
    sent += answered
    boards = {board: load_profile(board) for board, _ in scenario.boards}
    steps = {board: _step_s(strategy, card, profile) for board, profile in boards.items()}
    memory = {board: _memory_bytes(strategy, place, said, profile) for board, profile in boards.items()}
    refused = next((f"{board}: {why}" for board, profile in boards.items()
                    if (why := _too_much(strategy, card, profile, memory[board], steps[board]))), "")  # fmt: skip
    refused = unfit or unsuited(strategy, card) or refused
    if n == 1 and name != "isolated":
        refused = NOBODY
    network = scenario.network
    wanted = {
        "": strategy.period_s,
        "traffic": (sent + received) / demand.traffic_bytes * DAY_S if demand.traffic_bytes else inf,
        "uplink": sent / network.uplink_bytes_per_s / BUSY if network.uplink_bytes_per_s else 0.0,
        "downlink": received / network.downlink_bytes_per_s / BUSY if network.downlink_bytes_per_s else 0.0,
        "computing": max((getattr(strategy, "steps", 0) * (step or 0.0) for step in steps.values()), default=0) / BUSY,
    }
    limited_by, period_s = max(wanted.items(), key=lambda item: item[1])
    if limited_by == "traffic" and hasattr(strategy, "budget_bytes_per_s"):
        # it speaks when there is news, and can be told how many bytes that may take: no need to look less often
        budget = demand.traffic_bytes / DAY_S / (1 + degree)
        settings, period_s = {"budget_bytes_per_s": float(f"{budget:.3g}")}, strategy.period_s
        sent = min(sent, budget * period_s)
        received = sent * degree
    elif limited_by:
        period_s = _rounded_up(period_s)
    if not refused and period_s > DAY_S / FEWEST_ROUNDS:
        refused = f"its {limited_by} allows a round in {period_s / 3600:.3g} h only"
    rounds = DAY_S / period_s
    transport_s = sum(network.delay_s) / len(network.delay_s)
    transport_s += sent / network.uplink_bytes_per_s if network.uplink_bytes_per_s else 0.0
    transport_s += received / network.downlink_bytes_per_s if network.downlink_bytes_per_s else 0.0
    age_s = inf
    if said and n > 1 and network.loss < 1:
        age_s = mean_age_paced(period_s * min(each.every_rounds for each in said), 0.0, 1 - network.loss, transport_s)
    return Estimate(
        method=name,
        settings={**settings, "period_s": period_s},
        told=said if n > 1 else (),
        period_s=period_s,
        sent_bytes=sent * rounds,
        received_bytes=received * rounds,
        link_bytes=(sent - answered) * rounds,
        most=n > 1 and any(each.most for each in said),
        age_s=age_s,
        memory_bytes=memory,
        step_s=steps,
        limited_by=limited_by,
        refused=refused,
    )


def _method(name: str, place: Place, goal: str) -> tuple[Any, dict[str, Any], str]:
    """The method, its settings, and why these cannot be on this graph, or "": then it is with settings of its own.

    Raises ConfigError: they cannot be, and are meant for this method.
    """
    scenario, cls = place.scenario, STRATEGIES[name]

    def settings(given: Mapping[str, Any]) -> dict[str, Any]:
        return {**played_with(name, given, place.headed.heads, place.hops, goal), **given}

    chosen = settings({key: value for key, value in scenario.strategy.knobs.items() if hasattr(cls, key)})
    try:
        return on_graph(cls(**chosen), scenario.topology()), chosen, ""
    except ValueError as error:
        if name == scenario.strategy.name:
            raise ConfigError(f"[strategy] {name}: {error}") from None
        own = settings({})
        return cls(**own), own, str(error)


def unsuited(strategy: Any, card: ModelCard) -> str:
    """Why the method cannot train this model on any board, or ""."""
    if not wants_model(strategy):
        return ""
    if not card.labels or not card.losses:
        return f"the model {card.name} cannot be trained"
    return "the model has no auxiliary heads" if wants_public(strategy) and not card.heads else ""


def _rounded_up(value: float) -> float:
    """To two digits, never down."""
    unit = 10.0 ** (floor(log10(value)) - 1)
    return float(f"{ceil(value / unit - 1e-9) * unit:.6g}")


def _batch(strategy: Any, profile: Profile) -> int:
    return (strategy.batch or profile.training.batch) * (2 if wants_public(strategy) else 1)


def _step_s(strategy: Any, card: ModelCard, profile: Profile) -> float | None:
    """Of training; None for a method without a model."""
    return cost(card, speed(profile), _batch(strategy, profile)).step_s if wants_model(strategy) else None


def _memory_bytes(strategy: Any, place: Place, said: tuple[Told, ...], profile: Profile) -> int:
    """Of the whole process at its peak: `models.cost`, the rows kept, and what is known of each neighbour."""
    card, row_bytes = place.card_of(strategy), 4 * place.features
    most = int(place.graph.degrees().max()) if len(place.graph.names) > 1 else 0
    if not wants_model(strategy):
        peers = most if wants_public(strategy) else min(len(place.graph.names) - 1, strategy.peers_limit)
        return speed(profile).base_bytes + (1 + peers) * getattr(strategy, "keep_limit", 0) * (row_bytes + 32)
    trained = cost(card, speed(profile), _batch(strategy, profile)).memory_bytes
    parts = {"all": card.size, "body": card.body_size, "head": card.size - card.body_size, "track": card.size}
    copies = sum(4 * parts.get(each.what, 0) for each in said) * most * METHODS[strategy.name].vectors
    opinions = 0
    if wants_public(strategy):
        tables = 1 + min(most, strategy.teachers)
        opinions = place.public_rows * (row_bytes + 4 * place.classes * (1 + card.heads) * tables)
    return int(trained + copies + strategy.window * row_bytes + opinions)


def _too_much(strategy: Any, card: ModelCard, profile: Profile, memory_bytes: int, step_s: float | None) -> str:
    """Why a board of that class cannot run it, or ""."""
    training, memory = profile.training, profile.memory
    limit = memory.memory_max_mb * 1_000_000 or memory.ram_mb_min * 1_000_000 * memory.memory_max_share
    if wants_model(strategy) and card.size > training.max_params:
        return f"{card.size:,} parameters, at most {training.max_params:,} there"
    if limit and memory_bytes > limit:
        return f"{memory_bytes / 1e6:.0f} MB of memory, at most {limit / 1e6:.0f} MB there"
    if step_s is not None and training.max_step_s and step_s > training.max_step_s:
        return f"a step takes {step_s:.2g} s, at most {training.max_step_s:g} s there"
    return ""
