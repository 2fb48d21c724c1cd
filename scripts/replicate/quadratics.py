"""Global update tracking on heterogeneous quadratics in float64, where every fact of its theory can be seen exactly.

Agents of a graph minimise the mean of f_i(x) = 1/2 (x - b_i)' H_i (x - b_i), without noise. The published program
(exchange of updates) stands beside the compact form and the product's form in `edgeswarm.maths.tracking`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeswarm.maths import tracking
from edgeswarm.maths.graphs import Graph, Topology

Floats = NDArray[np.float64]
N, D = 16, 20


def graph(kind: str, nodes: int = N, weights: str = "uniform") -> Graph:
    return Topology(kind, names=tuple(f"n{i:02d}" for i in range(nodes)), weights=weights).graph("n00", ())


@dataclass(eq=False)
class Quadratics:
    """f_i(x) = 1/2 (x - b_i)' H_i (x - b_i), curvatures 0.1 to 2, optima far apart."""

    nodes: int = N
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.curvature = rng.uniform(0.1, 2.0, (self.nodes, D))
        self.centre = rng.normal(0, 1.0, (self.nodes, D))

    def gradient(self, x: Floats) -> Floats:
        return self.curvature * (x - self.centre)

    def optimum(self) -> Floats:
        best: Floats = (self.curvature * self.centre).sum(0) / self.curvature.sum(0)
        return best


def consensus(x: Floats) -> float:
    return float(np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean()))


def published(w: Floats, problem: Quadratics, rounds: int, eta: float, mu: float, beta: float = 0.0) -> list[Floats]:
    """The authors' program, which exchanges updates (form 3.1 of the specification): x after each round."""
    n = len(w)
    x = np.zeros((n, D))
    said, copies, before, momentum = x.copy(), (w - np.diag(np.diag(w))) @ x, np.zeros_like(x), np.zeros_like(x)
    own = np.diag(w)[:, None]
    others = w - np.diag(np.diag(w))
    path = []
    for _ in range(rounds):
        change = x - said
        r = own * change + others @ change + (1 + beta) * (copies + (own - 1) * said)
        said, copies = said + change, copies + others @ change
        pull = copies + (own - 1) * said
        direction = problem.gradient(x + pull) - pull / eta
        y = direction - (mu / eta) * r - mu * before
        before, momentum = direction, beta * momentum + y
        x = x - eta * momentum
        path.append(x)
    return path


def compact(
    w: Floats,
    problem: Quadratics,
    rounds: int,
    eta: float,
    mu: float,
    beta: float = 0.0,
    mixed: Callable[[Floats], Floats] | None = None,
) -> list[Floats]:
    """The same by `tracking.global_update_momentum`. mixed: what nodes take W x to be, where they do not know."""
    x = np.zeros((len(w), D))
    x_before = z_before = step_before = None
    path = []
    for _ in range(rounds):
        z = w @ x if mixed is None else mixed(x)
        step = eta * problem.gradient(z)
        given = (x, z, 0 * x) if x_before is None else (x_before, z_before, step_before)
        x_before, z_before, step_before, x = (
            x, z, step, tracking.global_update_momentum(x, z, step, *given, beta=beta, mu=mu)
        )  # fmt: skip
        path.append(x)
    return path


def averages(
    w: Floats, problem: Quadratics, rounds: int, eta: float, mu: float, loss: float = 0.0, seed: int = 0
) -> list[Floats]:
    """The same by trailing averages and leads, each message of an edge lost with probability `loss`."""
    n, rng = len(w), np.random.default_rng(seed)
    x = np.zeros((n, D))
    average = x.copy()
    edges = [(i, j) for i in range(n) for j in range(n) if i != j and w[i, j] > 0]
    ahead = {edge: np.zeros(D) for edge in edges}
    missed = dict.fromkeys(edges, 0)
    path = []
    for _ in range(rounds):
        z, correction = x.copy(), np.zeros_like(x)
        for i, j in edges:
            missed[i, j] += 1
            if rng.random() >= loss:
                lead, ahead[i, j] = tracking.met(ahead[i, j], average[j], average[i], mu, missed[i, j])
                z[i] += w[i, j] * lead
                missed[i, j] = 0
            correction[i] += w[i, j] * tracking.gain(mu) * mu ** missed[i, j] * ahead[i, j]
        x = z - eta * problem.gradient(z) + correction
        average = tracking.trailing(average, x, mu)
        path.append(x)
    return path


def steps_to_a_tenth(path: list[Floats], target: Floats) -> int:
    """Rounds until the mean's distance from where it ends is a tenth of the start's."""
    distances = [float(np.linalg.norm(x.mean(0) - target)) for x in path]
    return next(i for i, d in enumerate(distances, 1) if d <= 0.1 * float(np.linalg.norm(target)))


@dataclass(eq=False)
class Alike(Quadratics):
    """All nodes have one curvature, so that the mean's way does not depend on disagreement."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.curvature = np.ones((self.nodes, D))
        self.centre += 5.0


class NewestCopies:
    """What nodes take W x to be who hold the newest copy of each neighbour that reached them."""

    def __init__(self, w: Floats, loss: float, differences: bool = False, seed: int = 1) -> None:
        self.w, self.loss, self.differences = w, loss, differences
        self.rng = np.random.default_rng(seed)
        self.copies, self.said = np.zeros((N, N, D)), np.zeros((N, D))

    def __call__(self, x: Floats) -> Floats:
        got = self.rng.random((N, N)) >= self.loss
        got[np.arange(N), np.arange(N)] = True
        news = self.copies + (x - self.said)[None] if self.differences else np.broadcast_to(x[None], self.copies.shape)
        self.copies = np.where(got[:, :, None], news, self.copies)
        self.said = x
        mixed: Floats = np.einsum("ij,ijd->id", self.w, self.copies)
        return mixed


def facts() -> dict[str, float]:
    """The figures of the specification's lines 1 and 6, by name."""
    w, problem, flat = graph("ring").matrix(), Quadratics(), Alike()
    one, two = published(w, problem, 500, 0.05, 0.9), compact(w, problem, 500, 0.05, 0.9)
    three = averages(w, problem, 500, 0.05, 0.9)
    found = {
        "forms differ by": max(float(np.abs(a - b).max()) for a, b in zip(one, two, strict=True)),
        "product form differs by": max(float(np.abs(a - b).max()) for a, b in zip(two, three, strict=True)),
        "mean gradient missed by": mean_missed_by(w, problem, 0.9),
        "consensus, GUT 0.9 / D-PSGD": consensus(compact(w, problem, 6000, 0.02, 0.9)[-1])
        / consensus(compact(w, problem, 6000, 0.02, 0.0)[-1]),
    }
    cases = {
        "Dyck, mu 0.55": ("dyck", 32, "uniform", 0.55, 0.0),
        "ring, beta 0.9, mu 0.15": ("ring", N, "uniform", 0.15, 0.9),
        "Dyck lazy, mu 0.9": ("dyck", 32, "lazy", 0.9, 0.0),
    }
    for name, (kind, nodes, weights, mu, beta) in cases.items():
        found[f"largest number, {name}"] = largest(graph(kind, nodes, weights), mu, beta)
    target = flat.optimum()
    ideal = steps_to_a_tenth(compact(w, flat, 4000, 0.02, 0.9), target)
    for loss in (0.1, 0.3):
        slow = [
            steps_to_a_tenth(compact(w, flat, 4000, 0.02, 0.9, mixed=NewestCopies(w, loss, seed=seed)), target)
            for seed in range(4)
        ]
        formula = (0.1 + 2 / 3 * loss / (1 - loss)) / 0.1
        found[f"slow-down / formula, {loss:.0%} lost"] = float(np.mean(slow)) / ideal / formula
        kept = steps_to_a_tenth(averages(w, flat, 4000, 0.02, 0.9, loss), target)
        found[f"slow-down of the product form, {loss:.0%} lost"] = kept / ideal
    off = compact(w, flat, 4000, 0.02, 0.9, mixed=NewestCopies(w, 0.1, differences=True))[-1].mean(0) - target
    found["mean off by, 10% of differences lost, of the way"] = float(np.linalg.norm(off) / np.linalg.norm(target))
    return found


def mean_missed_by(w: Floats, problem: Quadratics, mu: float) -> float:
    """Largest difference between what the mean model moved by and the mean gradient at the mixed models."""
    x, eta, worst = np.zeros((len(w), D)), 0.05, 0.0
    for after in compact(w, problem, 200, eta, mu):
        moved = (x - after).mean(0) / eta
        worst = max(worst, float(np.abs(moved - problem.gradient(w @ x).mean(0)).max()))
        x = after
    return worst


def largest(on: Graph, mu: float, beta: float) -> float:
    """Largest number after 2,000 rounds; infinite where it diverged."""
    with np.errstate(all="ignore"):
        x = compact(on.matrix(), Quadratics(len(on.names)), 2000, 0.02, mu, beta)[-1]
    return float(np.abs(x).max()) if np.isfinite(x).all() else float("inf")
