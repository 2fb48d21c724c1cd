"""A history that looks like a demo, for tests of the screen, the picture and the sums. The demo never shows it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgeswarm.demo.history import AgentHistory, History
from edgeswarm.demo.view import View

MAINS = (("8", "0"), ("7", "1"), ("3", "6"), ("2", "4"), ("5", "9"))


def make_history(agents: int = 5, reports: int = 26, total: int = 290) -> History:
    """Every agent reports once a second and learns `total` samples in `reports - 1` seconds."""
    nodes = [f"pi-{i + 1}" for i in range(agents)]
    history = History(AgentHistory(node, total, MAINS[i % len(MAINS)]) for i, node in enumerate(nodes))
    for second in range(reports):
        part = second / max(1, reports - 1)
        for i, node in enumerate(nodes):
            notes = {
                "samples": round(total * part),
                "prototypes": 5 + round(60 * part) + i,
                "accuracy_alone": 0.6 + 0.3 * part,
                "accuracy_swarm": 0.6 + 0.35 * part,
                "holdout_alone": 0.1 + 0.3 * part + 0.01 * i,
                "holdout_swarm": 0.1 + 0.8 * part**0.5 - 0.01 * i,
                "sent": second // 2,
                "held": second // 3 + i,
                "held_no_news": second // 4,
                "held_over_budget": i,
                "bytes_sent": 900.0 * second * (1 + 0.1 * i),
                "bytes_received": 3600.0 * second,
                "finished": float(second == reports - 1),
            }
            links = {
                peer: {
                    "age_s": 0.4 * ((i + j) % 7) + 0.3,
                    "weight": 0.1 + 0.1 * j,
                    "prototypes": 40.0 + j,
                    "muted": 0.0,
                }
                for j, peer in enumerate(nodes)
                if peer != node
            }
            history.record(float(second), node, notes, links)
    return history


def make_view(history: History, notes: tuple[str, ...] = ()) -> View:
    """A view as in the middle of a demo."""
    title = "5 agents, handwritten digits (64 features, 10 classes), seed 7"
    broker = "Mosquitto 2.0.11, private, at mqtt://127.0.0.1:40123"
    return View(history, title, broker, notes, "learning", 17.4, 25.0)


@pytest.fixture
def made_up_history() -> Callable[..., History]:
    """See `make_history`."""
    return make_history


@pytest.fixture
def made_up_view() -> Callable[..., View]:
    """See `make_view`."""
    return make_view
