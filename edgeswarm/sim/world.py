"""A swarm in one process: the product's own agents, strategy and codec under a virtual clock and a simulated broker.

What differs from devices is three objects: the clock jumps from event to event, the transport is `MemoryHub` (which
really encodes every message), and samples are fed from arrays at given times. A run is decided by its seeds alone.

Agents whose events fall on the same instant take them side by side: each goes on to the next request it has, and all
these requests are handed to the backend in one call. Who goes first is decided by the order of the events, never by
the backend, so a backend that answers requests one by one gives the same run; what differs is the rounding of sums
that a batched call adds up in another order (the last bits of float32). At one instant samples come before wake-ups.

Nothing is done for a node to which nothing happens, so a run costs what happens in it, however many nodes there are.
"""

from __future__ import annotations

import gc
import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any
from zlib import crc32

from edgeswarm.agent.agent import Agent
from edgeswarm.agent.announcement import announcement
from edgeswarm.agent.clock import LocalClock, VirtualClock
from edgeswarm.agent.compute import Answering, Sets
from edgeswarm.agent.learner import AGAIN_S
from edgeswarm.agent.peers import PeerTable
from edgeswarm.errors import EdgeswarmError, ModelError, OutOfMemory
from edgeswarm.messages import Presence
from edgeswarm.sim import freeze
from edgeswarm.sim.node import BATCH_LIMIT, Hearing, Item, Node, Step, Stream
from edgeswarm.strategies.base import Batch, Peers, Request, Started, Strategy, Woke
from edgeswarm.strategies.checks import packed, unpacked
from edgeswarm.transport.hub import MemoryHub
from edgeswarm.transport.weather import CALM, AccessLink, Weather

__all__ = ["BATCH_LIMIT", "HAPPENINGS", "Node", "Stream", "World"]

HAPPENINGS = (
    "crash", "revive", "leave", "sleep", "jump", "speed", "cut", "heal", "partition", "join_sides", "restart_broker",
    "become",
)  # fmt: skip
"""What `World.at` can be told to do."""

COLLECT_AFTER = 1_000_000
"""Objects that are more than at the last look for cycles before there is another, while a world runs. What thousands of
agents hold in the middle of a step is no garbage, and is fewer."""
Duration = Callable[[str, Request], float]


class World:
    """Nodes that each run `strategy` on a stream of their own.

    strategy: one for all, or a function from node name to one.  streams: node name to its samples.
    backend: who does the heavy arithmetic; one with the model loaded for strategies that train one (give the strategy
    through `strategies.base.equipped`).  requests, calls: how many requests there were, in how many calls.
    packet_limit_bytes: largest message the broker takes; longer ones are cut.
    circles: whose presence, prototypes and words to all a node hears, by its name; everybody's without it, which
    costs as many messages as there are pairs.  links: what the links of some nodes are like.
    duration_s: virtual seconds that a request takes on a node's board, during which its other events wait.
    checkpoint_s: how often a node's state is kept; a crash loses what came after.
    history: keep what nodes answered and decided (`Node.tested`, `Node.decisions`).
    watch: called with a node after each of its steps.
    first_epoch: boot counter of a node's first start; a device's is large (`agent.store.epoch_without_disk`), which
    makes its messages a few bytes longer.
    """

    def __init__(
        self,
        strategy: Strategy[Any] | Callable[[str], Strategy[Any]],
        streams: Mapping[str, Stream],
        seed: int,
        weather: Weather = CALM,
        backend: Answering | None = None,
        packet_limit_bytes: int = 120_000,
        *,
        circles: Callable[[str], Collection[str] | None] = lambda name: None,
        links: Mapping[str, AccessLink] | None = None,
        duration_s: Duration | None = None,
        checkpoint_s: float = 60.0,
        history: bool = True,
        watch: Callable[[Node], None] | None = None,
        first_epoch: int = 1,
        dumped: Any = None,
    ) -> None:
        """dumped: go on from there (`dump`), with the same strategy, streams and other arguments; the seed, links and
        weather are those of then. Raises ValueError: it does not fit."""
        self.seed, self.checkpoint_s, self.history, self.watch = seed, checkpoint_s, history, watch
        self.first_epoch = first_epoch
        self.clock = VirtualClock(self._settle)
        self.hub = MemoryHub(self.clock, random.Random(seed), weather, packet_limit_bytes=packet_limit_bytes)
        self.hub.links.update(links or {})
        self.nodes: dict[str, Node] = {}
        self.requests = self.calls = 0
        self._backend: Answering = Sets() if backend is None else backend
        self._circles, self._duration_s = circles, duration_s
        self.ready: deque[Node] = deque()
        self._computed: deque[Node] = deque()
        for name, stream in streams.items():
            chosen: Any = strategy if hasattr(strategy, "step") else strategy(name)
            self.nodes[name] = Node(name, chosen, stream, LocalClock(self.clock, self.due, name))
        if dumped is not None:
            freeze.load(self, dumped)
            return
        for name, stream in streams.items():
            if stream.start_s > 0:
                self.clock.call_at(stream.start_s, self.switch_on, name)
            else:
                self.switch_on(name)

    def dump(self) -> dict[str, Any]:
        """All of it as plain data, for `strategies.checks.packed`, between two calls of `run`."""
        return freeze.dump(self)

    def run(self, until_s: float, enough: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass up to `until_s`, or less: `enough` is asked at every instant, and True ends it there. Going on
        later is as if it had never stopped. Returns whether all up to `until_s` was done."""
        # Python would look through all agents for cycles every few messages, which takes a quarter of the time.
        before = gc.get_threshold()
        gc.set_threshold(max(before[0], COLLECT_AFTER), *before[1:])
        try:
            self._settle()  # what happened since: nodes that were added, links that were cut
            return self.clock.run(until_s, enough)
        finally:
            if not gc.get_freeze_count():  # what is there now counts as old, or the next look would go through it all
                gc.freeze()
                gc.unfreeze()
            gc.set_threshold(*before)

    def deliver(self, node: Node, event: Item) -> None:
        """Let a node's agent take an event; it does so before time goes on, unless it sleeps or its board computes."""
        if node.status not in ("running", "asleep") or (event is Peers and Peers in node.events):
            return
        node.events.append(event)
        if len(node.events) == 1 and node.step is None and node.status == "running":
            self.ready.append(node)

    # ---- what may happen to nodes ------------------------------------------------------------------------------------

    def at(self, when_s: float, what: str, *args: Any) -> None:
        """Do one of HAPPENINGS at that time, with plain values as arguments. Raises ValueError: no such thing."""
        if what not in HAPPENINGS:
            raise ValueError(f"what may happen is one of {', '.join(HAPPENINGS)}, not {what!r}")
        self.clock.call_at(when_s, self.happen, what, args)

    def happen(self, what: str, args: Iterable[Any]) -> None:
        """Do it now."""
        getattr(self, what)(*args)

    def crash(self, name: str, for_s: float = 0.0, will_delay_s: float | None = None) -> None:
        """Power goes: all since the last checkpoint is lost, and nobody is told but by the broker, after a while.

        for_s: when it is back (0: when it is revived). Absences that overlap add up: a node is back when all of them
        are over, or when it is revived.  will_delay_s: how long it takes the broker, if not as in the weather.
        """
        node = self.nodes[name]
        self._away(node, for_s)
        if node.status in ("running", "asleep"):
            self.hub.cut(name, will_delay_s)
            self._go_down(node, "crashed")

    def leave(self, name: str, for_s: float = 0.0) -> None:
        """An orderly stop: the state is kept, and the others are told. A step under way is given up. for_s: as of
        `crash`."""
        node = self.nodes[name]
        self._away(node, for_s)
        if node.status in ("running", "asleep"):
            node.saved = (node.agent.state, node.taken)
            node.transport.leave()
            self._go_down(node, "left")

    def revive(self, name: str) -> None:
        """Switch a node on that crashed or left: it goes on from what it kept, as on a disk, in a new epoch."""
        if self.nodes[name].status in ("crashed", "left"):
            self.switch_on(name)

    def sleep(self, name: str, for_s: float) -> None:
        """Offline and not running for so long, as of `crash`. What wakes it meanwhile, and its samples, wait."""
        node = self.nodes[name]
        self._away(node, for_s)
        if node.status == "running":
            node.transport.leave("sleeping")
            node.status = "asleep"

    def _away(self, node: Node, for_s: float) -> None:
        """For so long it will not be back, 0 for ever."""
        if node.status == "waiting":
            return
        until_s = self.clock.now() + for_s if for_s else float("inf")
        node.away_s = until_s if node.status == "running" else max(node.away_s, until_s)
        if for_s:
            self.clock.call_at(until_s, self.back, node.name)

    def back(self, name: str) -> None:
        """An absence is over, and the node is there again unless another goes on."""
        node = self.nodes[name]
        if self.clock.now() < node.away_s:
            return
        self.revive(name)
        if node.status == "asleep":
            node.status = "running"
            node.transport.announce(self._presence(node))
            self.hub.heal(name)
            if node.step is not None and node.step.done:
                self._computed.append(node)
            elif node.step is None and node.events:
                self.ready.append(node)
            self.feed(name, node.life)

    def jump(self, name: str, by_s: float) -> None:
        """A node's own clock jumps forward."""
        self.nodes[name].clock.change(by_s)

    def speed(self, name: str, rate: float) -> None:
        """A node's own clock runs at `rate` seconds a second from now on."""
        self.nodes[name].clock.change(rate=rate)

    def cut(self, name: str, will_delay_s: float | None = None) -> None:
        """A node's link breaks. will_delay_s: as of `crash`."""
        if self.nodes[name].status == "running":
            self.hub.cut(name, will_delay_s)

    def heal(self, name: str) -> None:
        """A node's link is back."""
        if self.nodes[name].status == "running":
            self.hub.heal(name)

    def partition(self, groups: Collection[Collection[str]], for_s: float = 0.0) -> None:
        """See `MemoryHub.partition`. for_s: how long this one lasts, whatever others do; 0: until `join_sides`."""
        number = self.hub.partition(groups)
        if for_s:
            self.at(self.clock.now() + for_s, "join_sides", number)

    def join_sides(self, number: int | None = None) -> None:
        """See `MemoryHub.join_sides`."""
        self.hub.join_sides(number)

    def restart_broker(self, keep_retained: bool = False) -> None:
        """See `MemoryHub.restart`."""
        self.hub.restart(keep_retained)

    def become(self, weather: Weather) -> None:
        """The weather changes."""
        self.hub.weather = weather

    # ---- called by the clock -----------------------------------------------------------------------------------------

    def switch_on(self, name: str) -> None:
        """A node starts, for the first time or again, and its samples will come."""
        node = self.nodes[name]
        if node.epoch:
            node.past.update(node.transport.counters)
        node.status, node.life, node.epoch = "running", node.life + 1, max(node.epoch + 1, self.first_epoch)
        state, node.taken = self._kept(node)
        node.fed = node.taken
        self.connect(node, state)
        node.save_due_s = self.clock.now() + self.checkpoint_s
        self.deliver(node, Started(node.clock.now(), node.epoch))
        node.transport.announce(self._presence(node))
        self._feed_later(node)

    def connect(self, node: Node, state: Any) -> None:
        """Give a node a transport and an agent."""
        node.peers = PeerTable(node.name)
        node.transport = self.hub.join(node.name, Hearing(node, self.deliver), self._circles(node.name))
        kept = (node.decisions.append, node.tested.append) if self.history else ()
        deliver = partial(self.deliver, node)
        node.agent = Agent(node.name, node.strategy, state, node.transport, node.clock, deliver, *kept)

    def feed(self, name: str, life: int) -> None:
        """Samples are due."""
        node = self.nodes[name]
        if node.status == "running" and node.life == life:
            for batch in node.due(self.clock.now()):
                self.deliver(node, batch)
            self._feed_later(node)

    def due(self, name: str, number: int) -> None:
        """An appointment of a node with its own clock."""
        self.nodes[name].clock.keep(number)

    def computed(self, name: str, life: int) -> None:
        """A node's board is done with a sum."""
        node = self.nodes[name]
        if node.life == life and node.step is not None:
            node.step.done = True
            if node.status == "running":
                self._computed.append(node)

    def _feed_later(self, node: Node) -> None:
        when = node.next_s()
        if when is not None:
            self.clock.call_first_at(when, self.feed, node.name, node.life)

    def _go_down(self, node: Node, status: str) -> None:
        if node.step is not None:
            node.step.steps.close()
        node.status, node.life, node.step = status, node.life + 1, None
        node.events.clear()
        node.clock.forget()

    def _kept(self, node: Node) -> tuple[Any, int]:
        """State and samples a node starts with."""
        if node.saved is None:
            return node.strategy.init(node.name, self.seed), 0
        state, taken = node.saved
        return node.strategy.load(node.name, unpacked(packed(node.strategy.dump(state)))), taken

    def _presence(self, node: Node) -> Presence:
        strategy: Any = node.strategy
        task = self.hub.task
        instance = f"{crc32(node.name.encode()):08x}"
        return announcement(
            node.name, node.epoch, instance, strategy.name, task, node.stream.x.shape[1], strategy.schema, {}
        )

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Take all events that wait, the arithmetic of agents that need some at once in one call."""
        asking: list[tuple[Node, Step, Request]] = []
        while self.ready or self._computed or asking:
            while self._computed:
                node = self._computed.popleft()
                if node.step is not None and node.step.request is not None:
                    asking.append((node, node.step, node.step.request))
                    node.step.request = None
            answered = zip(asking, self._answered([request for _, _, request in asking]), strict=True)
            asking, ready, self.ready = [], self.ready, deque()
            for (node, step, _), reply in answered:
                if node.step is step:  # else it was switched off at this very instant
                    self._go_on(node, step, reply, asking)
            for node in ready:
                if node.status == "running" and node.step is None and node.events:
                    self._go_on(node, self._begun(node), None, asking)

    def _begun(self, node: Node) -> Step:
        """The step for what comes first; it stays in front until it is done: one at a time."""
        if node.events[0] is Peers:
            node.events[0] = Peers(node.clock.now(), node.peers.present())
        elif isinstance(node.events[0], Batch):
            node.join_batches()
        event: Any = node.events[0]
        node.step = Step(node.agent.steps(event))
        return node.step

    def _go_on(self, node: Node, step: Step, reply: Any, asking: list[tuple[Node, Step, Request]]) -> None:
        """With a step, up to what it asks for next, which is to be answered unless it takes time, or its end."""
        try:
            failed = isinstance(reply, EdgeswarmError)
            request = step.steps.throw(reply) if failed else step.steps.send(reply)
        except StopIteration:
            self._over(node)
            return
        except (ModelError, OutOfMemory):  # as a device does: nothing changed, and it tries again
            node.given_up += 1
            self._over(node, given_up=True)
            return
        if node.agent.taking is step.event:
            step.answered += 1
        else:  # the first request of this event: an event may follow from another within one step
            step.event, step.answered = node.agent.taking, 0
        if not self._takes_time(node, step, request):
            asking.append((node, step, request))

    def _takes_time(self, node: Node, step: Step, request: Request) -> bool:
        """Whether the board computes for a while; the answer is worked out when that is over."""
        if self._duration_s is None:
            return False
        seconds = self._duration_s(node.name, request)
        if seconds > 0:
            step.request, step.done = request, False
            self.clock.call_at(self.clock.now() + seconds, self.computed, node.name, node.life)
        return seconds > 0

    def again(self, name: str, life: int, event: Woke) -> None:
        """A wake-up whose step was given up comes again."""
        node = self.nodes[name]
        if node.life == life:
            self.deliver(node, event)

    def _over(self, node: Node, given_up: bool = False) -> None:
        """A step is done: its event leaves, a checkpoint may be due, the next event follows."""
        event = node.events.popleft()
        node.step = None
        if given_up and isinstance(event, Woke):
            self.clock.call_at(self.clock.now() + AGAIN_S, self.again, node.name, node.life, event)
        if isinstance(event, Batch):
            node.taken += len(event.y)
        if self.clock.now() >= node.save_due_s:
            node.saved, node.save_due_s = (node.agent.state, node.taken), self.clock.now() + self.checkpoint_s
        if node.events:
            self.ready.append(node)
        if self.watch is not None:
            self.watch(node)

    def answer(self, request: Request) -> Any:
        """The backend's answer to one request, outside of all counting."""
        return self._backend.answer(request)

    def _answered(self, requests: list[Request]) -> list[Any]:
        """An answer to each, or the error that its step is to be told of."""
        if not requests:
            return []
        self.requests, self.calls = self.requests + len(requests), self.calls + 1
        try:
            return self._backend.answer_all(requests)
        except EdgeswarmError:  # of one of them: find out whose it is
            return [self._tried(request) for request in requests]

    def _tried(self, request: Request) -> Any:
        try:
            return self._backend.answer(request)
        except EdgeswarmError as error:
            return error
