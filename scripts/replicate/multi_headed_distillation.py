#!/usr/bin/env python3
"""Multi-headed distillation: what the specification counts as faithful, and what this project adds, each by a control.

A. Zhmoginov and others, arXiv 2211.15774. None of the paper's tables could be read, so its claims are those of the
abstract, and the lines those of section 9.4 of the project's specification. 8 nodes, everybody hears everybody, MNIST,
3 primary labels each (skew 100), 1,000 own images, 6,000 public ones without labels, 784-128-64 and linear heads, SGD
0.05 with momentum 0.9 and a cosine, 64 + 64 rows a step, 600 steps, predictions every 50; the very agents, codec and
strategies in the simulator. beta_priv: accuracy on the node's own mix of classes; beta_sh: on all classes alike; means
over nodes, then over seeds; "rank k" is auxiliary head k. Bytes: those a node sends, whole packets.

Beyond the paper: the strategy as it comes (`ours`), and one liar of eight, each kind an arm of its own (`told_lies`).
"next" claims the class after the true one with probability 1 for every public image, "one class" the same class for
all. The aimed ones claim, as surely, the next class for the class that fewest of the others know: "aimed" calls all
classes alike for every other image, "turncoat" is an honest node there. "own honest" is honest about its own primary
classes and claims the next one for all others. What a liar costs is counted against the same swarm with that node
honest. Whoever knows a class alone would be missed anyway, so the liar is a node whose labels others have too, and
"silent" is the same node saying nothing; beta is that of the seven others. "unlike models": four perceptrons, two
LeNet-5 and two boards with prototypes, of which each has samples of three classes and none of the others.

--full: CIFAR-10 with a small convolutional network instead. --check exits 1 and names every line that is not met.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before NumPy is imported: one thread per worker process

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "bench"), str(HERE)]

import campaign
import report
from gatta import begun
from image_sets import images, scaled
from rounds import Rounds
from tables import Asked, Line, Verdict, aligned, drawn, lines_table, mean, missed, of

from edgeswarm.export.build import build
from edgeswarm.maths.graphs import Topology
from edgeswarm.messages import Array
from edgeswarm.models.file import Model
from edgeswarm.models.public import PublicSet
from edgeswarm.sim.splits import primary_labels
from edgeswarm.strategies.isolated import Isolated
from edgeswarm.strategies.multi_headed_distillation import PUBLISHED, MultiHeadedDistillation
from edgeswarm.strategies.prototype_distillation import PrototypeDistillation

NODES, OWN, PUBLIC, TEST, STEPS, EVERY = 8, 1000, 6000, 5000, 600, 50
PRIMARY_SHARE = 0.05
"""A class with at least this share of a node's rows is one of its primary ones."""


@dataclass(frozen=True)
class Liar(MultiHeadedDistillation):
    """A node that trains as everybody does, and tells `lies` (n, classes) with every head, as if it had seen those
    rows; of rows whose lies are zeros it says what it believes."""

    lies: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False, compare=False)

    def _opinion(self, state: Any) -> Any:
        p, embedding = yield from super()._opinion(state)
        return np.where(self.lies.any(axis=1)[:, None, None], self.lies[:, None], p), embedding

    def refreshed(self, lessons: Any, *rest: Any) -> Any:
        """See `strategies.teaching.TeachingKnobs`."""
        near = replace(lessons.near, squares=np.where(self.lies.any(axis=1), np.float32(0), lessons.near.squares))
        after, actions = super().refreshed(replace(lessons, near=near), *rest)
        return replace(after, near=lessons.near), actions


@dataclass(frozen=True)
class Arm:
    """One way of doing it. heads: auxiliary ones of the model.  skew: of the labels.  odd: what the odd node does.
    kinds: of the nodes, where they are not alike: of NETWORKS, or BOARD."""

    settings: dict[str, Any] | None
    heads: int = 1
    graph: str = "full"
    skew: float = 100.0
    odd: str = ""
    kinds: tuple[str, ...] = ()


NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"shape": (784,), "options": {"hidden": (128, 64)}},
    "lenet5": {"shape": (1, 28, 28)},
    "cnn": {"shape": (3, 32, 32)},
}
BOARD = "prototypes"
"""A node without any network, which learns by `prototype_distillation`."""
OURS: dict[str, Any] = {"clip": 0.0}
CHEAP: dict[str, Any] = {**PUBLISHED, "embedding_weight": 0.0}
ARMS = {
    "separate": Arm(None),
    "MHD, m = 1": Arm(PUBLISHED),
    "mean teacher": Arm({**PUBLISHED, "choice": "mean"}),
    "random teacher": Arm({**PUBLISHED, "choice": "random"}),
    "top-2, uint8": Arm({**PUBLISHED, "encoding": "top2"}),
    "MHD, m = 4": Arm(PUBLISHED, 4),
    "MHD, m = 4, cycle": Arm(PUBLISHED, 4, "ring"),
    "MHD, m = 4, islands": Arm(PUBLISHED, 4, "islands"),
    "separate, s = 0": Arm(None, skew=0.0),
    "MHD, s = 0": Arm(PUBLISHED, skew=0.0),
    "float32, no embeddings": Arm(CHEAP),
    "ours": Arm(OURS),
    "ours, silent": Arm(OURS, odd="silent"),
    "ours, next": Arm(OURS, odd="next"),
    "ours, one class": Arm(OURS, odd="one class"),
    "ours, aimed": Arm(OURS, odd="aimed"),
    "ours, turncoat": Arm(OURS, odd="turncoat"),
    "ours, own honest": Arm(OURS, odd="own honest"),
    "unlike models": Arm({**OURS, "serve": 1}, skew=math.inf, kinds=("mlp",) * 4 + ("lenet5",) * 2 + (BOARD,) * 2),
    "as published, next": Arm(CHEAP, odd="next"),
    "as published, aimed": Arm(CHEAP, odd="aimed"),
}
LIARS = ("next", "one class", "aimed", "turncoat", "own honest")
QUICK = ("separate", "ours")
FULL = ("separate", "float32, no embeddings", "ours")
"""Arms of the quick run, and on CIFAR-10."""

Runs = dict[str, list[dict[str, Any]]]
"""By arm, one for each seed."""


# ---- one run ---------------------------------------------------------------------------------------------------------


def run(data: str, arm: str, seed: int, folder: Path, models: Sequence[Model | None]) -> dict[str, Any]:
    """beta_priv and beta_sh by rank, of all nodes and of all but the odd one, and bytes sent per node.

    models: of each node, None for a BOARD. Where the nodes are of several kinds: of what they answer alone and with
    the others' help, in place of ranks 0 and 1, and "unseen", by kind, on classes of which a node has no sample.
    """
    began = time.monotonic()
    plan = ARMS[arm]
    x, y, x_test, y_test = images(data, folder)
    parts, aside = primary_labels(y, NODES, seed, skew=plan.skew, per_node=OWN)
    aside = aside[:PUBLIC]
    mix = np.array([np.bincount(y[part], minlength=10) / len(part) for part in parts])
    odd = replaceable(mix)
    labels = next(each.card.labels for each in models if each)
    public = PublicSet(scaled(x[aside]), labels)
    common = {"rate": 0.05, "schedule": "cosine", "horizon": STEPS, "batch": 64, "steps": EVERY, "period_s": 10.0}
    method = (
        Isolated(**common, clip=0.0) if plan.settings is None else MultiHeadedDistillation(**common, **plan.settings)
    )
    methods: list[Any] = [method if each else PrototypeDistillation(period_s=method.period_s) for each in models]
    if plan.odd == "silent":
        methods[odd] = Isolated(**common, clip=0.0)
    elif plan.odd:
        lies = told_lies(plan.odd, y[aside], rare(mix, odd), mix[odd] >= PRIMARY_SHARE)
        partly = not lies.any(axis=1).all()  # where it is honest, it is so as the others are
        methods[odd] = Liar(**common, **(OURS if partly else CHEAP), lies=lies)
    started = [each and replace(each, initial=begun(each, NODES * seed + node)) for node, each in enumerate(models)]
    own = [(scaled(x[part]), y[part]) for part in parts]
    x_test, y_test = scaled(x_test[:TEST]), y_test[:TEST]
    swarm = Rounds(methods, own, started, graph(plan.graph), public=public, seed=seed, backend="torch")
    swarm.to(0)
    greeting = swarm.counted("bytes_sent")
    swarm.to(STEPS // EVERY)
    others = np.arange(NODES) != odd
    figures: dict[str, Any] = {"private": [], "shared": [], "private_others": [], "shared_others": []}
    unseen: dict[str, list[float]] = {kind: [] for kind in plan.kinds}
    for rank in range(plan.heads + 1):
        if plan.kinds:
            said = np.array(swarm.answers(x_test, alone=not rank)) == np.array(labels)[y_test]
            by_class = np.array([said[:, y_test == label].mean(axis=1) for label in range(len(labels))]).T
        else:
            found = swarm.evaluations((x_test, y_test), rank - 1)
            by_class = np.array([each.class_right / each.class_rows for each in found])
        for kind, got in unseen.items():
            of_kind = np.array(plan.kinds) == kind
            got.append(float(100 * by_class[of_kind][mix[of_kind] == 0].mean()))
        private, shared = 100 * (mix * by_class).sum(axis=1), 100 * by_class.mean(axis=1)
        figures["private"].append(float(private.mean()))
        figures["shared"].append(float(shared.mean()))
        figures["private_others"].append(float(private[others].mean()))
        figures["shared_others"].append(float(shared[others].mean()))
    sent = swarm.counted("bytes_sent") - greeting
    return {**figures, "unseen": unseen, "bytes": sent / NODES, "seconds": time.monotonic() - began}


def graph(kind: str) -> Topology:
    """By name; islands are two halves, everybody with everybody in each."""
    if kind != "islands":
        return Topology(kind)
    names = [f"node-{at:03d}" for at in range(NODES)]
    halves = names[: NODES // 2], names[NODES // 2 :]
    return Topology("edges", edges=tuple((a, b) for half in halves for a in half for b in half if a < b))


def rare(mix: NDArray[np.float64], odd: int) -> int:
    """The class that fewest of the others have as a primary one, but somebody has."""
    primary = mix >= PRIMARY_SHARE
    others = primary.sum(axis=0) - primary[odd]
    return int(np.argmin(np.where(others > 0, others, len(mix))))


def told_lies(kind: str, y: NDArray[Any], aim: int, own: NDArray[np.bool_]) -> Array:
    """(n, classes) of LIARS, zeros where it is honest. y: (n,) the truth.  aim: the class aimed at.  own: (classes,)
    whether it is a primary one of the liar's."""
    sure = np.eye(10, dtype=np.float32)
    lies = sure[np.full(len(y), (aim + 1) % 10) if kind == "one class" else (y + 1) % 10]
    if kind == "aimed":
        lies[y != aim] = 0.1
    elif kind == "turncoat":
        lies[y != aim] = 0.0
    elif kind == "own honest":
        lies[own[y]] = 0.0
    elif kind not in LIARS:
        raise KeyError(kind)
    return lies


def replaceable(mix: NDArray[np.float64]) -> int:
    """The first node whose rarest primary class has the most other nodes."""
    primary = mix >= PRIMARY_SHARE
    return int(np.argmax([(primary.sum(axis=0) - 1)[own].min() for own in primary]))


# ---- what came out ---------------------------------------------------------------------------------------------------


Judge = Callable[[Runs], Verdict]


@dataclass(frozen=True)
class Beta:
    """An accuracy of head `rank` in percent, mean over seeds. figure: which of `run`'s."""

    arm: str
    rank: int = 0
    figure: str = "shared"

    def of(self, runs: Runs) -> float:
        """Raises what `tables.of` and `tables.mean` raise."""
        return mean(one[self.figure][self.rank] for one in of(runs, self.arm, ARMS))


def beats(one: Beta, *others: Beta, least: float | None) -> Judge:
    """By how much it is above the highest of the others, which has to be `least`; None where that is only reported."""

    def judge(runs: Runs) -> Verdict:
        value, other = one.of(runs), max(each.of(runs) for each in others)
        met = None if least is None else value - other >= least
        return f"{value:.1f} against {other:.1f}: {value - other:+.1f}", met

    return judge


def costs(arm: str, honest: str, most: float | None) -> Judge:
    """What one node of eight takes from the others' rank 1."""
    least = None if most is None else -most
    return beats(Beta(arm, 1, "shared_others"), Beta(honest, 1, "shared_others"), least=least)


def cheaper(arm: str, than: str, times: float) -> Judge:
    """In bytes."""

    def judge(runs: Runs) -> Verdict:
        dear, cheap = (mean(one["bytes"] for one in of(runs, name, ARMS)) for name in (than, arm))
        return f"{dear / 1e3:,.0f} kB to {cheap / 1e3:,.0f} kB: {dear / cheap:.0f} times", dear >= times * cheap

    return judge


def gains(arm: str, least: float) -> Judge:
    """Every kind of node, by its neighbours' help, on classes of which it has no sample."""

    def judge(runs: Runs) -> Verdict:
        found = {
            kind: mean(with_help - alone for alone, with_help in (one["unseen"][kind] for one in of(runs, arm, ARMS)))
            for kind in dict.fromkeys(ARMS[arm].kinds)
        }
        return ", ".join(f"{kind} {gain:+.1f}" for kind, gain in found.items()), min(found.values()) >= least

    return judge


def fails(runs: Runs) -> Verdict:
    """Training alone, on classes that it has not seen."""
    shared, private = APART.of(runs), APART_PRIVATE.of(runs)
    return f"{shared:.1f}, {private:.1f}", shared < 55 and private > 92


def islands(runs: Runs) -> Verdict:
    """What every rank loses in two halves."""
    lost = [Beta("MHD, m = 4", rank).of(runs) - Beta("MHD, m = 4, islands", rank).of(runs) for rank in (1, 2, 3, 4)]
    return " ".join(f"{each:+.1f}" for each in lost), min(lost) >= 10


APART, APART_PRIVATE = Beta("separate"), Beta("separate", 0, "private")
PLAIN = "float32, no embeddings"
FIRST, OURS_FIRST = Beta("MHD, m = 1", 1), Beta("ours", 1)
LINES = (
    Asked("separate training fails", "separate: beta_sh < 55, beta_priv > 92", fails),
    Asked("shared accuracy rises strongly", "rank 1 beats separate by >= 30", beats(FIRST, APART, least=30)),
    Asked("private accuracy is kept", "main beta_priv at most 1 below separate",
          beats(Beta("MHD, m = 1", 0, "private"), APART_PRIVATE, least=-1)),
    Asked("the backbone gains too", "main beta_sh beats separate by >= 8", beats(Beta("MHD, m = 1"), APART, least=8)),
    Asked("the surest teacher", "beats mean and random by >= 4, rank 1",
          beats(FIRST, Beta("mean teacher", 1), Beta("random teacher", 1), least=4)),
    Asked("heads carry over hops", "cycle: rank 3 beats rank 1 by >= 3",
          beats(Beta("MHD, m = 4, cycle", 3), Beta("MHD, m = 4, cycle", 1), least=3)),
    Asked("specification", "complete: no rank beats rank 1 by > 2",
          beats(Beta("MHD, m = 4", 1), *(Beta("MHD, m = 4", rank) for rank in (2, 3, 4)), least=-2)),
    Asked("specification", "islands >= 10 below complete, every rank", islands),
    Asked("specification", "s = 0: not below separate", beats(Beta("MHD, s = 0"), Beta("separate, s = 0"), least=0)),
    Asked("specification", "top-2 uint8 loses at most 1, rank 1", beats(Beta("top-2, uint8", 1), FIRST, least=-1)),
    Asked("beyond", "ours: rank 1 beats separate by >= 30", beats(OURS_FIRST, APART, least=30)),
    Asked("beyond", "ours: >= 30 times fewer bytes than float32", cheaper("ours", PLAIN, 30)),
    Asked("beyond", "... rank 1 at most 1 lower", beats(OURS_FIRST, Beta(PLAIN, 1), least=-1)),
    Asked("beyond", "... beta_priv at most 1 below separate",
          beats(Beta("ours", 0, "private"), APART_PRIVATE, least=-1)),
    Asked("beyond", "unlike models: every kind gains >= 40 on classes that it never saw", gains("unlike models", 40)),
    *(Asked("one of eight", f"{liar}: costs <= 2, rank 1", costs(f"ours, {liar}", "ours", 2)) for liar in LIARS),
    Asked("one of eight", "says nothing", costs("ours, silent", "ours", None)),
    *(Asked("one of eight", f"{liar}: to the published form", costs(f"as published, {liar}", PLAIN, None))
      for liar in ("next", "aimed")),
)  # fmt: skip
CIFAR_LINES = (
    Asked("shared accuracy rises", "CIFAR-10: float32 rank 1 beats separate by >= 8",
          beats(Beta(PLAIN, 1), APART, least=8)),
    Asked("beyond", "CIFAR-10: ours: rank 1 beats separate by >= 8", beats(OURS_FIRST, APART, least=8)),
    Asked("beyond", "CIFAR-10: ... rank 1 at most 1 below float32", beats(OURS_FIRST, Beta(PLAIN, 1), least=-1)),
    Asked("beyond", "CIFAR-10: ... beta_priv at most 1 below separate",
          beats(Beta("ours", 0, "private"), APART_PRIVATE, least=-1)),
    Asked("beyond", "CIFAR-10: >= 30 times fewer bytes", cheaper("ours", PLAIN, 30)),
)  # fmt: skip
"""What section 11 of the specification calls a win there; that 8 points are gained at all is a line of this project."""


def show(data: str, runs: Runs, lines: list[Line]) -> None:
    """For people."""
    rows = [["arm", "priv", "sh", "rank 1: priv", "sh", "2", "3", "4", "seeds (best sh)", "kB/node", "s"]]
    for arm, got in runs.items():
        means = {name: [statistics.fmean(each) for each in zip(*(one[name] for one in got), strict=True)]
                 for name in ("private", "shared")}  # fmt: skip
        ranks = [f"{each:.1f}" for each in means["shared"][1:]] if ARMS[arm].settings else []
        rows.append([
            arm, f"{means['private'][0]:.1f}", f"{means['shared'][0]:.1f}",
            f"{means['private'][1]:.1f}" if ranks else "", *(ranks + [""] * 4)[:4],
            " ".join(f"{max(one['shared']):.1f}" for one in got),
            f"{statistics.fmean(one['bytes'] for one in got) / 1e3:,.1f}",
            f"{statistics.fmean(one['seconds'] for one in got):.0f}",
        ])  # fmt: skip
    print(f"\n{data}\n{aligned(rows)}")
    print(f"\n{lines_table(lines)}")


# ---- all of it -------------------------------------------------------------------------------------------------------


def main() -> int:
    """Runs everything that was asked for."""
    parser = report.parser(__doc__, "one seed, two arms")
    chosen = "the width of `gate` was chosen on seeds 0 to 2, the rules of maths/corroboration.py on 0 to 8"
    options = campaign.options(parser, "in place of MNIST: CIFAR-10", chosen)
    data = "cifar10_jpeg" if options.full else "mnist"
    arms = QUICK if options.quick else FULL if options.full else tuple(ARMS)
    wanted = campaign.arms(options, arms)
    usual = ("cnn" if options.full else "mlp",) * NODES
    kinds = {arm: [(kind, ARMS[arm].heads) for kind in ARMS[arm].kinds or usual] for arm in wanted}
    needed = {each for of_arm in kinds.values() for each in of_arm if each[0] in NETWORKS}
    models = {(kind, heads): build(kind, 10, heads=heads, **NETWORKS[kind]) for kind, heads in needed}
    seeds = campaign.seeds(options)

    def one(arm: str, seed: int) -> dict[str, Any]:
        return run(data, arm, seed, options.data, [models.get(each) for each in kinds[arm]])

    longest_first = sorted(wanted, key=lambda arm: -ARMS[arm].heads)
    jobs = [(arm, seed) for arm in longest_first for seed in seeds]
    runs: Runs = {arm: [] for arm in wanted}
    for (arm, _), found in campaign.played(one, jobs, options.jobs, lambda each: f"beta_sh {max(each['shared']):.1f}"):
        runs[arm].append(found)
    lines = drawn(CIFAR_LINES if options.full and not options.quick else LINES, runs)
    figures = {"data": data, "runs": runs, "lines": [vars(line) for line in lines]}
    return report.end(options, figures, missed(lines), lambda: show(data, runs, lines))


if __name__ == "__main__":
    sys.exit(main())
