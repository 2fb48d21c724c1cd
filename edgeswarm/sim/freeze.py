"""A world as plain data, and the world again: going on from there equals never having stopped.

A step in the middle of its arithmetic is not written down but taken anew, from the state it began with, up to the
request it waits for: steps are decided by state and event alone. What comes from a file names no code: appointments
are those of APPOINTMENTS, everything else is data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeswarm.sim.node import Node, Step
from edgeswarm.sim.plain import Reader, Writer

if TYPE_CHECKING:
    from edgeswarm.sim.world import World

FORMAT = 2
APPOINTMENTS = {
    "world": ("switch_on", "feed", "due", "computed", "back", "happen", "again"),
    "hub": ("take", "speak_will", "relay", "arrive"),
}
_PLAIN = (
    *("status", "epoch", "life", "tested", "decisions", "refused", "given_up"),
    *("fed", "taken", "save_due_s", "away_s"),
)


def dump(world: World) -> dict[str, Any]:
    """Plain data for `strategies.checks.packed`. Raises TypeError: somebody else has an appointment in the clock."""
    return Writer().write(  # type: ignore[no-any-return]
        {
            "format": FORMAT,
            "seed": world.seed,
            "now": world.clock.now(),
            "requests": world.requests,
            "calls": world.calls,
            "hub": world.hub.dump(),
            "nodes": {name: _node(node) for name, node in world.nodes.items()},
            "ready": [node.name for node in world.ready],
            "appointments": [
                (when, rank, order, *_named(world, callback), args)
                for order, (when, rank, _, callback, args) in enumerate(world.clock.appointments())
            ],
        }
    )


def load(world: World, dumped: Any) -> None:
    """Make `world`, in which nothing has happened yet, the one that was dumped. Raises ValueError: it is no dump, or of
    other nodes."""
    found = Reader().read(dumped)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError("not the state of a simulation, or of another version")
    if list(found["nodes"]) != list(world.nodes):
        raise ValueError("the saved simulation has other nodes")
    owners: dict[str, Any] = {"world": world, "hub": world.hub}
    appointments = []
    for when, rank, order, owner, name, args in found["appointments"]:
        if name not in APPOINTMENTS.get(owner, ()):
            raise ValueError(f"a saved simulation has no appointment {name!r}")
        appointments.append((when, rank, order, getattr(owners[owner], name), args))
    world.clock.restore(found["now"], [])
    for name, held in found["nodes"].items():
        node = world.nodes[name]
        for field in _PLAIN:
            setattr(node, field, held[field])
        if node.epoch:
            _switched_on(world, node, held)
    world.hub.load(found["hub"])
    world.clock.restore(found["now"], appointments)
    world.requests, world.calls = found["requests"], found["calls"]
    world.ready.extend(world.nodes[name] for name in found["ready"])


def _node(node: Node) -> dict[str, Any]:
    held: dict[str, Any] = {name: getattr(node, name) for name in _PLAIN}
    if node.epoch:
        step = node.step
        held |= {
            "agent": node.agent.dump(),
            "clock": node.clock.dump(),
            "peers": node.peers.dump(),
            "events": list(node.events),
            "step": None if step is None else (step.answered, step.done),
            "saved": None if node.saved is None else (node.strategy.dump(node.saved[0]), node.saved[1]),
            "past": dict(node.past),
        }
    return held


def _switched_on(world: World, node: Node, held: dict[str, Any]) -> None:
    """The part of a node that it has once it was switched on."""
    world.connect(node, None)
    node.agent.load(held["agent"])
    node.clock.load(held["clock"], lambda event: world.deliver(node, event))
    node.peers.load(held["peers"])
    node.events.extend(held["events"])
    node.past.update(held["past"])
    if held["saved"] is not None:
        state, taken = held["saved"]
        node.saved = (node.strategy.load(node.name, state), taken)
    if held["step"] is not None:
        answered, done = held["step"]
        step = node.step = Step(node.agent.resume(), answered=answered, done=done)
        request = next(step.steps)
        step.event = node.agent.taking
        for _ in range(answered):
            request = step.steps.send(world.answer(request))
        step.request = request


def _named(world: World, callback: Any) -> tuple[str, str]:
    owner = {id(world): "world", id(world.hub): "hub"}.get(id(getattr(callback, "__self__", None)), "")
    name = getattr(callback, "__name__", "")
    if name not in APPOINTMENTS.get(owner, ()):
        raise TypeError(f"an appointment with {callback!r} cannot be saved")
    return owner, name
