"""What sharing costs in bytes, in closed form: of one message, and of what a method tells again and again.

A broker hands one publication to all who listen, so what a node sends does not grow with its neighbours, and what it
receives does. Counted are whole MQTT 5 packets at QoS 1, without acknowledgements (4 bytes a packet each way).
"""

from __future__ import annotations

from math import ceil

from edgeswarm.maths.learner import HALF_LIVES
from edgeswarm.models.cost import PACKET_BYTES, vector_bytes
from edgeswarm.transport.packet import overhead_bytes, payload_limit_bytes
from edgeswarm.wire import topics
from edgeswarm.wire.topics import SNAPSHOT_EXPIRY_S

DAY_S = 86_400.0
WEIGHTS_HEAD_BYTES = 48
"""Frame and numbers of a `Weights` message beside codes, scales and places; less or more by a few."""
PREDICTIONS_HEAD_BYTES = 52
BIDS_HEAD_BYTES = 34
CHUNK_HEAD_BYTES = 29
PROTOTYPES_HEAD_BYTES = 70
LABEL_COUNT_ID_BYTES = 6
"""Of each prototype beside its vector."""
_NIBBLE = 16


def weights_bytes(numbers: int, scheme: str, share: float = 0.1, part: str = "all", difference: bool = False) -> int:
    """A vector of `numbers` as part of a model, in the packets it takes."""
    payload = WEIGHTS_HEAD_BYTES + vector_bytes(numbers, scheme, share)
    if difference:
        return _packets(payload, topics.diff_topic("site", "node-1", part, "task"), retained=False)
    return _packets(payload, topics.model_topic("site", "node-1", part, "task"))


def answers(loss: float, asks: int, differences: bool) -> float:
    """How often in a round a neighbour is given what it has missed, where each message is lost by that chance.

    asks: how often in a round it asks for what has not come.  differences: one that is lost is missed by all that
    follow, so it is also asked for when the next comes.
    """
    heard = 1.0 - loss
    if not heard:
        return 0.0
    in_vain = 1.0 - heard**2  # the question or its answer is lost

    def given(tries: int) -> float:
        return (1.0 - in_vain**tries) / heard

    found = loss * given(asks)
    if not differences:
        return found
    behind = loss * in_vain**asks
    share = behind / (1.0 - heard * in_vain ** (asks + 1))  # of rounds that begin without what a difference builds on
    return found + share * heard * given(asks + 1)


def predictions_bytes(rows: int, heads: int, classes: int, encoding: str, trusted: bool = False) -> int:
    """What `heads` heads say of all `rows` rows of a public set. trusted: with a byte of trust for each row."""
    each = {"float32": 4 * classes, "uint8": classes}.get(encoding, 2 + (1 if classes <= _NIBBLE else 2))
    payload = PREDICTIONS_HEAD_BYTES + rows * (heads * each + trusted)
    return _packets(payload, topics.public_topic("site", "node-1", "task"))


def bids_bytes(rows: int) -> int:
    """One floor for each public row, at most: half a byte, before compression."""
    return _packets(BIDS_HEAD_BYTES + ceil(rows / 2), topics.bids_topic("site", "node-1", "task"))


def prototypes_bytes(count: int, features: int, classes: int, vectors: str, half_lives: int = len(HALF_LIVES)) -> int:
    """A whole set of `count` prototypes with its class statistics; a message of what changed is far smaller."""
    width = {"float32": 4, "float16": 2}.get(vectors, 1)
    each = width * features + LABEL_COUNT_ID_BYTES
    whole = PROTOTYPES_HEAD_BYTES + count * each + 2 * half_lives * classes * (1 + 2 * features)
    return _packets(whole + (8 * features if vectors == "int8" else 0), topics.proto_topic("site", "node-1", "task"))


def _packets(payload_bytes: int, topic: str, retained: bool = True) -> int:
    """A publication, cut into chunks where it is longer than a packet."""
    room = payload_limit_bytes(PACKET_BYTES, topics.piece_topic(topic, 9999), True)
    if payload_bytes <= room:
        return payload_bytes + overhead_bytes(topic, 1, retained, SNAPSHOT_EXPIRY_S, True, payload_bytes)
    chunks, each = ceil(payload_bytes / (room - CHUNK_HEAD_BYTES)), CHUNK_HEAD_BYTES
    return payload_bytes + chunks * (each + overhead_bytes(topic, 1, retained, SNAPSHOT_EXPIRY_S, True, room))
