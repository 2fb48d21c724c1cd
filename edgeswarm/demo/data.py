"""What the demo's devices learn from: a real data set, dealt out unevenly, and the files each agent process reads.

The skew follows the usual way of making non-identical shares (a Dirichlet draw per class), around a deal that gives
every agent a few classes of its own, so that the swarm has something to teach each of its members.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeswarm.errors import DataError
from edgeswarm.messages import Array
from edgeswarm.sim.data import DataSet

MAIN_SHARE = 0.8
"""Part of a class that goes, on average, to the agents whose main class it is; the others divide the rest."""

CONCENTRATION = 12.0
"""Sum of the Dirichlet parameters of one class: 12 lets a part of 0.8 vary by about 0.11."""

HOLD_OUT = 0.2
"""Part of every class that nobody learns from and everybody is examined on."""

HOLD_OUT_LIMIT = 400
SAMPLES_LIMIT = 1000
"""Most samples one agent learns in the demo: a large table is thinned, so that two cores keep up within a minute."""

FEWEST_SAMPLES = 10
"""Fewest samples per agent below which the demo would show noise."""


SHARE_PERIOD_S = 2.0
"""Time between two looks at what there is to share; an hour of a real site passes in the demo's half minute."""


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """What one agent learns from, in the order in which it sees it. main: its own classes, most frequent first."""

    node: str
    x: Array
    y: tuple[str, ...]
    main: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Deal:
    """A data set dealt out: one share per agent and a hold-out that all are examined on."""

    data: DataSet
    shares: tuple[Share, ...]
    holdout_x: Array
    holdout_y: tuple[str, ...]


def node_names(agents: int) -> tuple[str, ...]:
    """pi-1, pi-2, ..."""
    return tuple(f"pi-{i + 1}" for i in range(agents))


def deal(data: DataSet, agents: int, seed: int) -> Deal:
    """Deal `data` out to `agents` agents; the same seed deals the same cards.

    1. HOLD_OUT of every class (at most HOLD_OUT_LIMIT rows in all, at least one row per class) is set aside.
    2. Classes are shuffled and dealt in turn, ceil(classes / agents) to each agent, from the start again when they
       run out: these are its main classes.
    3. The rest of every class is cut into shares by a draw from a Dirichlet distribution with sum CONCENTRATION,
       in which MAIN_SHARE is divided among the class's main agents and the remainder among the others.
    4. An agent with more than SAMPLES_LIMIT samples keeps that many, chosen at random; every stream is shuffled.

    Raises DataError when there are too few rows for that many agents.
    """
    rng = np.random.default_rng(seed)
    labels = np.array(data.y)
    names = data.classes
    wanted = min(HOLD_OUT, HOLD_OUT_LIMIT / len(labels))
    held: list[NDArray[np.int64]] = []
    portions: list[list[NDArray[np.int64]]] = [[] for _ in range(agents)]
    main = _main_classes(names, agents, rng)
    for name in names:
        rows = rng.permutation(np.flatnonzero(labels == name))
        aside = max(1, round(wanted * len(rows)))
        held.append(rows[:aside])
        for portion, part in zip(portions, _cut(rows[aside:], [name in own for own in main], rng), strict=True):
            portion.append(part)
    shares = []
    for node, own, portion in zip(node_names(agents), main, portions, strict=True):
        rows = rng.permutation(np.concatenate(portion))[:SAMPLES_LIMIT]
        if len(rows) < FEWEST_SAMPLES:
            raise DataError(
                f"{data.name}: {len(labels)} rows leave {len(rows)} samples for {node}; {agents} agents need at least "
                f"{FEWEST_SAMPLES} each, so give it more rows or fewer agents"
            )
        shares.append(Share(node, data.x[rows], tuple(labels[rows].tolist()), own))
    test = rng.permutation(np.concatenate(held))
    return Deal(data, tuple(shares), data.x[test], tuple(labels[test].tolist()))


def _main_classes(names: Sequence[str], agents: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
    each = -(-len(names) // agents)
    order = [names[i] for i in rng.permutation(len(names))]
    return [tuple(order[(i * each + j) % len(order)] for j in range(each)) for i in range(agents)]


def _cut(rows: NDArray[np.int64], is_main: Sequence[bool], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rows of one class, one part per agent; all parts together are all rows."""
    mains, others = sum(is_main), len(is_main) - sum(is_main)
    if not mains or not others:
        expected = np.full(len(is_main), 1 / len(is_main))
    else:
        expected = np.where(is_main, MAIN_SHARE / mains, (1 - MAIN_SHARE) / others)
    drawn = rng.dirichlet(CONCENTRATION * expected)
    ends = np.round(np.cumsum(drawn) * len(rows)).astype(np.int64)
    return np.split(rows, ends[:-1])


@dataclass(frozen=True, slots=True)
class AgentFiles:
    """What one agent process is started with. total: samples in its share."""

    node: str
    config: Path
    main: tuple[str, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What all agents are told. length_s: time in which every agent goes through its share once.

    site: topics of this demo alone.  plain_text: the reader named a broker on another machine without TLS.
    protocol: as in [broker] of the configuration.  encoder: model file in front of the learning, "" for none.
    """

    url: str
    site: str
    length_s: float
    seed: int
    plain_text: bool = False
    protocol: str = "auto"
    report_every_s: float = 1.0
    evaluate_every_s: float = 2.0
    share_period_s: float = SHARE_PERIOD_S
    encoder: str = ""


def write_files(dealt: Deal, folder: Path, terms: Terms) -> tuple[AgentFiles, ...]:
    """One npz with `x` and `y`, and one configuration, per agent, and the hold-out, all in `folder`.

    An agent's rate is such that all of them reach the end of their shares together.
    """
    examination = folder / "holdout.npz"
    np.savez(examination, x=dealt.holdout_x, y=np.array(dealt.holdout_y))
    files = []
    for share in dealt.shares:
        samples = folder / f"{share.node}.npz"
        np.savez(samples, x=share.x, y=np.array(share.y))
        config = folder / f"{share.node}.toml"
        config.write_text(_config(share, samples, examination, folder / f"{share.node}-state", terms), encoding="utf-8")
        files.append(AgentFiles(share.node, config, share.main, len(share.y)))
    return tuple(files)


def _config(share: Share, samples: Path, examination: Path, state: Path, terms: Terms) -> str:
    sections: dict[str, dict[str, object]] = {
        "": {"node": share.node, "site": terms.site, "task": "demo", "seed": terms.seed},
        "broker": {"url": terms.url, "allow_plain_text": terms.plain_text, "protocol": terms.protocol},
        "source": {"kind": "npz", "path": str(samples), "rate_per_s": len(share.y) / terms.length_s},
        "strategy": {"name": "prototype_gossip", "period_s": terms.share_period_s},
        "state": {"folder": str(state)},
        "report": {"every_s": terms.report_every_s},
        "evaluate": {"path": str(examination), "every_s": terms.evaluate_every_s},
    }
    if terms.encoder:
        sections["encoder"] = {"path": terms.encoder}
    lines = []
    for section, values in sections.items():
        if section:
            lines.append(f"\n[{section}]")
        # a JSON string, number or boolean is a TOML one too
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
