"""What a learning method is: `init`, `step`, `predict`. It decides and asks; it never acts.

Events come in, actions go out, state is a value. Steps and predictions are generators: they may yield a `Request` for
arithmetic too heavy for the event loop and are handed the answer; where it cannot be computed, the error (`ModelError`,
`OutOfMemory`) is raised at the `yield`, and a step that lets it pass is given up: the state stays as it was. A device
answers in a worker thread, a simulation answers many agents' requests together, a test answers by hand. Nothing here
knows a socket, a clock, a file or a thread.

A method that trains a model has two more fields, `card` and `start` (`strategies.local_model.ModelKnobs`): what the
model is, and the vector it begins with; one that has neighbours has `topology`, one that learns from public samples has
`public`. Whoever runs the method sets them, as it sets `schema` (`equipped`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, Protocol, TypeAlias, TypeVar

from edgeswarm.backends.base import Cluster as Cluster
from edgeswarm.backends.base import Divergence as Divergence
from edgeswarm.backends.base import Request as Request
from edgeswarm.decision import Decision as Decision
from edgeswarm.errors import EdgeswarmError
from edgeswarm.maths.graphs import Topology
from edgeswarm.messages import Array, Message
from edgeswarm.models.file import Model
from edgeswarm.models.public import PublicSet
from edgeswarm.values import value

# ---- events: something happened -------------------------------------------------------------------------------------


@value(frozen=True, slots=True)
class Started:
    """The agent is up. epoch: boot counter, greater than at any earlier start of this node."""

    at: float
    epoch: int


@value(frozen=True, slots=True, eq=False)
class Batch:
    """Labelled samples of this node. x: (n, d) float32, finite.  y: n class names."""

    at: float
    x: Array
    y: tuple[str, ...]


@value(frozen=True, slots=True)
class Received:
    """A peer's message. sender: the name proven by the topic.  waited_s: time it lay at the broker, if known."""

    at: float
    sender: str
    message: Message
    waited_s: float = 0.0


@value(frozen=True, slots=True)
class Sent:
    """A `Send` left this node; told to strategies that count it (`counts_sent`). bytes: what one copy takes on the
    wire; `messages` parts it was cut into."""

    at: float
    to: str
    message: Message
    bytes: int


@value(frozen=True, slots=True)
class Woke:
    """A time asked for with `Wake` has come. name: as given there."""

    at: float
    name: str


@value(frozen=True, slots=True)
class Peers:
    """The peers that are present now (never this node itself), sorted."""

    at: float
    names: tuple[str, ...]


@value(frozen=True, slots=True)
class Linked:
    """The connection to the broker came up (again). The broker may have forgotten everything: say it anew."""

    at: float


Event: TypeAlias = Started | Batch | Received | Sent | Woke | Peers | Linked

# ---- actions: something wanted --------------------------------------------------------------------------------------


@value(frozen=True, slots=True)
class Send:
    """Give `message` to peer `to`, or to EVERYONE."""

    to: str
    message: Message


@value(frozen=True, slots=True)
class Wake:
    """Deliver `Woke(at, name)` at time `at`. A later Wake of the same name replaces an earlier one."""

    at: float
    name: str


@value(frozen=True, slots=True)
class Note:
    """A number worth watching. peer: set when the number belongs to the link from that peer."""

    name: str
    value: float
    peer: str = ""


@value(frozen=True, slots=True)
class Tested:
    """What this node would have answered to a labelled sample just before it learnt from it (test-then-train).

    answer: with all it knows.  alone: by its own samples only.  None: it knew nothing yet.
    """

    truth: str
    answer: str | None
    alone: str | None


@value(frozen=True, slots=True)
class Listen:
    """From now on, hear of these peers' models and predictions alone; replaces what an earlier Listen asked for.

    to: peer and channel: a part of `messages.PARTS`, "public" for predictions, "bids". What is not listed does not
    reach this node and costs no traffic. Without any Listen a node hears none of these; prototypes are not concerned.
    """

    to: frozenset[tuple[str, str]]


Action: TypeAlias = Send | Wake | Note | Tested | Decision | Listen


S = TypeVar("S")
Steps: TypeAlias = Generator[Request, Any, tuple[S, list[Action]]]
Answers: TypeAlias = Generator[Request, Any, tuple[list[str | None], Array]]
"""Class names and confidences, once whatever arithmetic they need has been done."""


class Strategy(Protocol[S]):
    """A learning method. Knobs are frozen on the strategy object; everything that changes is in the state."""

    @property
    def name(self) -> str:
        """What configurations, reports and checkpoints call it."""
        ...

    def init(self, node: str, seed: int) -> S:
        """State of a node that has seen nothing."""
        ...

    def step(self, state: S, event: Event) -> Steps[S]:
        """New state and actions; `state` itself is left as it was."""
        ...

    def predict(self, state: S, x: Array, alone: bool = False) -> Answers:
        """Class names (None: nothing learnt yet) and confidences in [0, 1] for each row of x (n, d).

        A generator, as a step is: `finish(strategy.predict(state, x), answer)`; where nothing is asked it may run in
        any thread. alone: use only what this node learnt from its own samples, where the method keeps that apart.
        """
        ...

    def dump(self, state: S) -> dict[str, Any]:
        """State as nested dicts and lists of numbers, strings, bytes and NumPy arrays, for a checkpoint."""
        ...

    def load(self, node: str, dumped: dict[str, Any]) -> S:
        """State from `dump`. Raises ValueError when it does not fit this strategy's settings."""
        ...


def labels_of(strategy: Any) -> tuple[str, ...]:
    """The class names that an equipped method can learn: its model's, else its public set's; () for one that learns
    whatever name comes."""
    card, public = getattr(strategy, "card", None), getattr(strategy, "public", None)
    if card is not None:
        return tuple(card.labels)
    return tuple(public.classes) if public is not None else ()


T = TypeVar("T")


def finish(steps: Generator[Request, Any, T], answer: Callable[[Request], Any]) -> T:
    """Run steps to their end, answering each request with `answer(request)`; returns what they return.

    Raises what `answer` raises, unless the steps catch it.
    """
    try:
        request = next(steps)
        while True:
            try:
                reply = answer(request)
            except EdgeswarmError as error:
                request = steps.throw(error)
            else:
                request = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result


def equipped(
    strategy: Any,
    schema: int,
    model: Model | None = None,
    batch: int = 0,
    topology: Topology | None = None,
    public: PublicSet | None = None,
) -> Any:
    """`strategy` as it is to run: with the fingerprint of its node's features and whatever else it wants of its node.

    batch: rows of a training step that suit the board, where the strategy's own setting is 0; 0: the method's own.
    topology: None for everybody with everybody.  Raises ValueError, one line: it needs a model or a public set and
    there is none, or cannot work with this one or on this graph.
    """
    given: dict[str, Any] = {"schema": schema}
    if wants_model(strategy):
        if model is None:
            raise ValueError(f"{strategy.name} trains a model, so it needs a model file")
        given |= {"card": model.card, "start": model.initial, "batch": strategy.batch or batch}
    if wants_public(strategy):
        if public is None:
            raise ValueError(f"{strategy.name} learns from a public set, so it needs the file of one")
        given["public"] = public
    return on_graph(replace(strategy, **given), topology)


def on_graph(strategy: Any, topology: Topology | None) -> Any:
    """`strategy` where that graph is; as it was where it has no neighbours, or the graph is None. Raises ValueError,
    one line: it cannot work on this graph."""
    if topology is None or not wants_neighbours(strategy):
        return strategy
    return replace(strategy, topology=topology)


def counts_sent(strategy: Any) -> bool:
    """Whether a strategy is told of each message that has left; all are that do not say otherwise."""
    return bool(getattr(strategy, "COUNTS_SENT", True))


def wants_model(strategy: Any) -> bool:
    """Whether a strategy, or a class of them, trains a model."""
    return hasattr(strategy, "card")


def wants_neighbours(strategy: Any) -> bool:
    """Whether a strategy hears the neighbours of a graph; with any other, everybody hears everybody."""
    return hasattr(strategy, "topology")


def wants_public(strategy: Any) -> bool:
    """Whether a strategy, or a class of them, learns from public samples."""
    return hasattr(strategy, "public")
