"""What the images demo is compared with: the same swarm without an encoder, and one learner that is sent everything.

Both are simulated with the product's own agent, strategy and codec, after the devices have stopped: five more
processes at the same time would slow the real ones down.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeswarm.backends.base import Embed
from edgeswarm.backends.choose import choose
from edgeswarm.backends.sets import answer
from edgeswarm.demo.bytes_picture import Comparison, Curve
from edgeswarm.demo.data import SHARE_PERIOD_S, Deal
from edgeswarm.demo.encoder import channels_first
from edgeswarm.demo.swarm import Outcome, Wish
from edgeswarm.messages import Array
from edgeswarm.sim.world import Node, Stream, World
from edgeswarm.strategies.base import finish
from edgeswarm.strategies.prototype_gossip import PrototypeGossip

EXAMS = 8
"""How often the simulated devices are examined."""


def compare(outcome: Outcome, wish: Wish) -> Comparison:
    """Everything that stands beside the curve of a demo with images. Takes some seconds."""
    assert outcome.encoder is not None
    dealt, encoder, summary = outcome.dealt, outcome.encoder, outcome.summary
    backend, _ = choose(("onnx",))
    backend.load(encoder.model)
    shape = encoder.model.card.input.shape

    def embedded(x: Array) -> Array:
        images = x.reshape(-1, *shape[1:], shape[0])  # the demo's rows are (height, width, channels)
        found: Array = backend.answer(Embed(encoder.model.card.hash, channels_first(images, shape)))
        return found

    return Comparison(
        curves=(on_pixels(dealt, wish.length_s, SHARE_PERIOD_S, wish.seed),),
        alone=summary.alone,
        encoder=encoder.accuracy,
        raw_bytes=summary.raw_bytes_per_agent,
        raw_accuracy=with_everything(
            embedded(np.concatenate([share.x for share in dealt.shares])),
            [label for share in dealt.shares for label in share.y],
            (embedded(dealt.holdout_x), dealt.holdout_y),
            wish.seed,
        ),
    )


def on_pixels(dealt: Deal, length_s: float, period_s: float, seed: int) -> Curve:
    """The swarm of the demo with the same shares, learning pixels instead of embeddings."""
    streams = {share.node: Stream(share.x, share.y, _times(length_s, len(share.y))) for share in dealt.shares}
    world = World(PrototypeGossip(period_s=period_s), streams, seed)
    sizes, right = [], []
    for turn in range(1, EXAMS + 1):
        world.run(length_s * turn / EXAMS + (2 * period_s if turn == EXAMS else 0.0))
        nodes = list(world.nodes.values())
        sizes.append(float(np.mean([_traffic(node) for node in nodes])))
        right.append(float(np.mean([_examined(node, dealt.holdout_x, dealt.holdout_y) for node in nodes])))
    return Curve("the same swarm on raw pixels, simulated", tuple(sizes), tuple(right))


def with_everything(x: Array, y: Sequence[str], exam: tuple[Array, Sequence[str]], seed: int) -> float:
    """Accuracy of one learner that gets every device's samples (n, d), examined on exam."""
    world = World(PrototypeGossip(), {"one": Stream(x, y, _times(1.0, len(y)))}, seed)
    world.run(2.0)
    return _examined(world.nodes["one"], *exam)


def _examined(node: Node, x: Array, y: Sequence[str]) -> float:
    said, _ = finish(node.agent.strategy.predict(node.agent.state, x), answer)
    return float(np.mean([told == truth for told, truth in zip(said, y, strict=True)]))


def _traffic(node: Node) -> int:
    counters = node.transport.counters
    return counters["bytes_sent"] + counters["bytes_received"]


def _times(length_s: float, samples: int) -> Array:
    """Evenly from just after the start to the end."""
    return (np.arange(1, samples + 1) * (length_s / samples)).astype(np.float32)
