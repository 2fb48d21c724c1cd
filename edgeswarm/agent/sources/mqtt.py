"""Samples from a sensor's MQTT topic, with labels that may come later. Knows no network: payloads are pushed in.

# Theory. An unlabelled reading is worth a prediction now and a lesson later. So it is handed on at once without a label
# (the service predicts and publishes `prediction_payload`), and kept by its id; when its label comes it is handed on a
# second time, now with the label, to be learnt from. What is kept is bounded in number and in time.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable

import numpy as np

from edgeswarm.agent.settings import SourceConfig
from edgeswarm.agent.sources.base import Sample, Schema
from edgeswarm.agent.sources.payloads import Reading, Refused, parse, prediction
from edgeswarm.agent.topics import matches
from edgeswarm.messages import Array

QUEUE_LIMIT = 1_000
"""Samples that wait to be taken; the oldest go first, since a sensor's newest reading is worth more than its oldest."""


class MqttSource:
    """Feed it with `push`, read it with `samples`; all from the event loop's thread.

    The features are those of the settings, of `features`, or of the first reading: its names in alphabetical order, or
    x0, x1, ... for a plain list. `dropped` counts by reason: those of `payloads.parse`, and wrong_dimension,
    non_finite, unknown_class, unknown_id (a label for a sample never seen), late_label (for one no longer kept),
    repeated_label, label_without_id, label_on_sample_topic, no_features, queue_full.
    """

    def __init__(
        self,
        settings: SourceConfig,
        task: str,
        features: tuple[str, ...] = (),
        now: Callable[[], float] = time.monotonic,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        """features: what this node has learnt with so far, from its saved state; the settings go before."""
        self.dropped: Counter[str] = Counter()
        self._settings = settings
        self._task = task
        self._features = settings.features or features
        self._ordered = bool(self._features)  # whether a plain list's order is known to be that of the names
        self._now = now
        self._classes = frozenset(settings.classes)
        self._queue: deque[Sample] = deque()
        self._queue_limit = queue_limit
        self._ready = asyncio.Event()
        self._closed = False
        self._pending: OrderedDict[str, tuple[float, Array]] = OrderedDict()
        self._gone: OrderedDict[str, str] = OrderedDict()

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """Topic filters to subscribe to."""
        return tuple(dict.fromkeys(topic for topic in (self._settings.topic, self._settings.label_topic) if topic))

    @property
    def pending(self) -> int:
        """Unlabelled samples kept for their label."""
        self._forget_old()
        return len(self._pending)

    def schema(self) -> Schema | None:
        """What the readings look like; None until the first one when nobody has said."""
        return Schema(self._task, self._features) if self._features else None

    def push(self, payload: bytes, topic: str) -> None:
        """Take one payload. Never raises for what is in it: bad ones are counted in `dropped`."""
        settings = self._settings
        try:
            reading = parse(payload, settings.format, settings.payload_limit_bytes, settings.id_key, settings.label_key)
            if reading.features is not None and not self._only_labels(topic):
                self._take_sample(reading, reading.features)
            elif reading.label is not None:
                self._take_label(reading, topic)
            else:
                raise Refused("no_features")
        except Refused as refused:
            self.dropped[refused.reason] += 1

    def close(self) -> None:
        """End `samples` once it has handed on what is waiting."""
        self._closed = True
        self._ready.set()

    async def samples(self) -> AsyncIterator[Sample]:
        """Readings as they come, until `close`; one that was unlabelled comes again when its label does."""
        while True:
            while self._queue:
                yield self._queue.popleft()
            if self._closed:
                return
            self._ready.clear()
            await self._ready.wait()

    def prediction_payload(self, id: str | int | None, label: str | None, confidence: float) -> bytes:
        """What to publish on the predictions topic, in the sensors' own format and keys; confidence in [0, 1]."""
        fields = {self._settings.id_key: id, self._settings.label_key: label, "confidence": round(float(confidence), 4)}
        return prediction(self._settings.format, fields)

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _only_labels(self, topic: str) -> bool:
        """Whether `topic` is the labels' alone."""
        settings = self._settings
        return (
            bool(settings.label_topic) and matches(settings.label_topic, topic) and not matches(settings.topic, topic)
        )

    def _take_sample(self, reading: Reading, features: list[float] | dict[str, float]) -> None:
        x = self._vector(features)
        if reading.label is not None:
            self._check_class(reading.label)
        elif reading.id is not None and self._settings.pending_limit:
            self._keep(str(reading.id), x)
        self._hand_on(Sample(x, reading.label, reading.id))

    def _vector(self, features: list[float] | dict[str, float]) -> Array:
        """The features in the schema's order. The first usable reading fixes them if nobody else has."""
        named = isinstance(features, dict)
        if isinstance(features, dict):
            names = self._features or tuple(sorted(features))
            if features.keys() != set(names):
                raise Refused("wrong_dimension")
            values = [features[name] for name in names]
        else:
            names = self._features or tuple(f"x{at}" for at in range(len(features)))
            if self._features and not self._ordered:
                raise Refused("wrong_shape")  # named so far: the order of a plain list is anyone's guess
            if len(features) != len(names):
                raise Refused("wrong_dimension")
            values = features
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
            x = np.asarray(values, np.float64).astype(np.float32)
        if not np.isfinite(x).all():
            raise Refused("non_finite")
        if not self._features:
            self._features, self._ordered = names, not named
        return x

    def _take_label(self, reading: Reading, topic: str) -> None:
        settings = self._settings
        if settings.label_topic and not matches(settings.label_topic, topic):
            raise Refused("label_on_sample_topic")
        if reading.id is None or reading.label is None:
            raise Refused("label_without_id")
        self._check_class(reading.label)
        self._forget_old()
        name = str(reading.id)
        kept = self._pending.pop(name, None)
        if kept is None:
            raise Refused(self._gone.get(name, "unknown_id"))
        self._remember(name, "repeated_label")
        self._hand_on(Sample(kept[1], reading.label, reading.id))

    def _check_class(self, label: str) -> None:
        if self._classes and label not in self._classes:
            raise Refused("unknown_class")

    def _keep(self, name: str, x: Array) -> None:
        """Keep an unlabelled sample. A second one of the same id replaces the first: the sensor corrects itself."""
        self._pending.pop(name, None)
        self._gone.pop(name, None)
        self._pending[name] = (self._now() + self._settings.pending_s, x)
        self._forget_old()

    def _forget_old(self) -> None:
        now = self._now()
        while self._pending:
            name, (until, _) = next(iter(self._pending.items()))
            if until > now and len(self._pending) <= self._settings.pending_limit:
                return
            del self._pending[name]
            self._remember(name, "late_label")

    def _remember(self, name: str, reason: str) -> None:
        """Why a later label for this id will not be used; as many are remembered as samples are kept."""
        self._gone[name] = reason
        while len(self._gone) > self._settings.pending_limit:
            self._gone.popitem(last=False)

    def _hand_on(self, sample: Sample) -> None:
        if len(self._queue) >= self._queue_limit:
            self._queue.popleft()
            self.dropped["queue_full"] += 1
        self._queue.append(sample)
        self._ready.set()
