"""Samples that somebody wants a prediction of: answered from what is known at that moment, those that wait together.

They do not go through the inbox, so no answer waits for an epoch of training to end.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np

from edgeswarm.agent.serving import Serving
from edgeswarm.agent.sources import MqttSource, Sample
from edgeswarm.agent.trouble import Trouble
from edgeswarm.errors import ModelError, OutOfMemory
from edgeswarm.transport.mqtt import MqttTransport

QUESTIONS = 32
"""Unlabelled samples that wait for a prediction, at most, and that are answered together."""


class Questions:
    """A short queue in front of `Serving`.  topic: where the answers go, in the form of the source's own messages.

    counters: predictions, unanswered (samples whose prediction could not be computed).
    """

    def __init__(
        self, source: MqttSource, topic: str, transport: MqttTransport, trouble: Trouble, counters: Counter[str]
    ) -> None:
        self._source = source
        self._topic = topic
        self._transport = transport
        self._trouble = trouble
        self._counters = counters
        self._waiting: asyncio.Queue[Sample] = asyncio.Queue(QUESTIONS)

    async def ask(self, sample: Sample) -> None:
        """Let `sample` wait for its answer; returns once there is room for it."""
        await self._waiting.put(sample)

    async def answer(self, serving: Serving) -> None:
        """Publish what this node makes of each sample, until cancelled; one that cannot be computed is left out."""
        while True:
            asked = [await self._waiting.get()]
            while len(asked) < QUESTIONS and not self._waiting.empty():
                asked.append(self._waiting.get_nowait())
            try:
                names, confidences = await serving.predict(np.stack([sample.x for sample in asked]))
            except (ModelError, OutOfMemory) as error:
                self._counters["unanswered"] += len(asked)
                self._trouble.not_computed(error)
            except Exception:
                self._trouble.fault()
            else:
                for sample, name, confidence in zip(asked, names, confidences.tolist(), strict=True):
                    self._counters["predictions"] += 1
                    payload = self._source.prediction_payload(sample.id, name, confidence)
                    self._transport.publish_raw(self._topic, payload, 1)
