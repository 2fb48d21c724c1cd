"""ILVQ: an online classifier made of labelled points that move, link, appear and disappear.

Y. Xu, F. Shen, J. Zhao. "An incremental learning vector quantization algorithm for pattern classification." Neural
Computing and Applications 21(6), 2012. https://doi.org/10.1007/s00521-010-0511-4
As used in: P. Fernández-Piñeiro et al. "Towards efficient compression and communication for prototype-based
decentralized learning", arXiv 2411.09267; "spec n" in comments means section n of this project's note on that paper.

Theory. The two prototypes nearest to a sample are the winner and the runner-up. If the sample is of an unknown class,
or farther from either than that one's threshold, it becomes a prototype itself. Otherwise winner and runner-up are
linked and the winner moves: towards the sample if their labels agree, away if not. Thresholds come from the links:
a prototype reaches about as far as its linked neighbours of the same class. Old edges are dropped, and now and then
prototypes with too few edges and wins are removed.

Two sets of rules:
PAPER  what the authors' experiments ran (spec 2.5 a-d): the denoise limit that removes all prototypes with fewer than
       two edges, the learning rate of the *previous* winner, win counts from 0, classes known for ever.
CLEAN  what was meant, and what drift needs: the published denoise limit, each winner's own rate with a floor, counts
       from 1 (so a count reads "samples this prototype stands for"), a class is known while it has a prototype.
Beyond both: a sample may stand for several (`weight`), so that win counts can travel between peers, and distances may
weigh features (`weights`), so that units of measurement do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from edgeswarm.maths.links import MOST_AGE
from edgeswarm.maths.prototypes import Positions, PrototypeSet, Vectors


@dataclass(frozen=True)
class Rules:
    """How an `Ilvq` learns. `dataclasses.replace(CLEAN, rate_floor=0.2)` makes a variant.

    age_old: an edge older than this many wins of its ends is dropped.  gamma: samples between two denoisings.
    denoise: "published" limit sum M / 2|P|, "coded" limit |P|/2 * sum M (spec 2.5 a), or "off".
    rates: "own" rate of each winner, or the "previous-winner"'s (spec 2.5 b).
    rate_floor: smallest rate of a winner; a larger one follows drift faster and remembers less.
    neighbour_share: rate of a winner's neighbours, as a share of the winner's.
    first_rates: winner's and neighbours' rate before the first win; used with "previous-winner" only.
    first_count: win count of a new prototype, for each sample it stands for.
    live_classes: a class is known while it has a prototype; else once seen, always known (spec 2.5 d).
    """

    age_old: int = 400
    gamma: int = 150
    denoise: Literal["published", "coded", "off"] = "published"
    rates: Literal["own", "previous-winner"] = "own"
    rate_floor: float = 0.05
    neighbour_share: float = 0.01
    first_rates: tuple[float, float] = (0.9, 0.1)
    first_count: float = 1.0
    live_classes: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.age_old <= MOST_AGE:
            raise ValueError(f"age_old is in 1..{MOST_AGE}, not {self.age_old}")
        if self.gamma < 1:
            raise ValueError(f"gamma is at least 1 sample, not {self.gamma}")
        if self.denoise not in ("published", "coded", "off"):
            raise ValueError(f"denoise is published, coded or off, not {self.denoise!r}")
        if self.rates not in ("own", "previous-winner"):
            raise ValueError(f"rates is own or previous-winner, not {self.rates!r}")
        if not 0 <= self.rate_floor < 1:
            raise ValueError(f"rate_floor is in [0, 1), not {self.rate_floor}")
        if not 0 <= self.neighbour_share <= 1:
            raise ValueError(f"neighbour_share is in [0, 1], not {self.neighbour_share}")
        if not 0 <= self.first_count < math.inf:
            raise ValueError(f"first_count is not negative, not {self.first_count}")


PAPER = Rules(denoise="coded", rates="previous-winner", rate_floor=0.0, first_count=0.0, live_classes=False)
CLEAN = Rules()


class Outcome(NamedTuple):
    """What one sample did. id: of the prototype it made or moved.  removed: prototypes lost to denoising."""

    inserted: bool
    id: int
    removed: int = 0


class Ilvq(PrototypeSet):
    """A set of prototypes that learns one labelled sample at a time.

    d: features.  rules: see `Rules`.  dtype: of the vectors, float64 or float32.
    """

    __slots__ = ("_rates", "rules")

    def __init__(self, d: int, rules: Rules = CLEAN, dtype: DTypeLike = np.float64) -> None:
        super().__init__(d, dtype)
        self.rules = rules
        self._rates = rules.first_rates

    @property
    def rates(self) -> tuple[float, float]:
        """Winner's and neighbours' rate that "previous-winner" will use next."""
        return self._rates

    def copy(self) -> Ilvq:
        """An independent copy: what either learns afterwards, the other does not see."""
        other = object.__new__(Ilvq)
        self._copy_into(other)
        other.rules, other._rates = self.rules, self._rates
        return other

    def learn(self, x: ArrayLike, label: int, weight: float = 1.0) -> Outcome:
        """Learn one labelled sample (spec 2.1 to 2.5).

        x: (d,).  label: class, not negative.  weight: samples that x stands for, above 0. It multiplies the win count
        that is added; with "own" rates the winner moves as far as that many successive samples at x would move it
        (away from x: at most to twice its distance).
        Raises ValueError when x has another shape, label is negative or weight is not above 0.
        """
        sample, label = self._sample(x, label)
        if not 0 < weight < math.inf:
            raise ValueError(f"a sample stands for more than 0 samples, not {weight}")
        self.epoch += 1
        if self.size <= 2:
            return Outcome(True, self._insert(sample, label, self.rules.first_count * weight))
        squared = self._squared(sample)
        first = int(squared.argmin())
        first_distance = math.sqrt(squared[first])
        squared[first] = math.inf
        second = int(squared.argmin())
        known = label in (self._live if self.rules.live_classes else self._seen)
        if not known or first_distance > self._reach(first) or math.sqrt(squared[second]) > self._reach(second):
            return Outcome(True, self._insert(sample, label, self.rules.first_count * weight))
        near = self._links.win(first, second, self.rules.age_old)
        self._move(sample, label, weight, first, near)
        winner = int(self._ids[first])
        return Outcome(False, winner, self.denoise() if self.epoch % self.rules.gamma == 0 else 0)

    def learn_many(self, x: ArrayLike, labels: Iterable[int]) -> int:
        """Learn the rows of x (n, d) one after another; returns how many became prototypes. Raises as `learn`."""
        rows = np.asarray(x, self._vectors.dtype)
        return sum(self.learn(row, label).inserted for row, label in zip(rows, labels, strict=True))

    def threshold(self, position: int) -> float:
        """Distance from the prototype beyond which a sample is new (spec 2.2); infinity without edges."""
        return self._reach(self._checked(position))

    def denoise(self) -> int:
        """Remove prototypes without an edge, and those with one edge and few wins (spec 2.4); returns how many."""
        if self.rules.denoise == "off" or self.size == 0:
            return 0
        degrees, counts = self._links.degrees(), self._counts[: self.size]
        total = float(counts.sum(dtype=np.float64))
        if self.rules.denoise == "published":
            few = total / (2 * self.size)
            gone = (degrees == 0) | ((degrees == 1) & (counts < few))
        else:
            # As coded (spec 2.5 a), and one after another: set, sum and edges shrink while the candidates are judged.
            gone, left = np.zeros(self.size, np.bool_), self.size
            for position in (degrees < 2).nonzero()[0].tolist():
                if degrees[position] == 1:
                    if not counts[position] < left / 2 * total:
                        continue
                    degrees[self._links.of(position)] -= 1
                gone[position] = True
                left -= 1
                total -= float(counts[position])
        self._remove(gone)
        return int(np.count_nonzero(gone))

    def _move(self, x: Vectors, label: int, weight: float, first: int, near: Positions) -> None:
        """Spec 2.3: the winner, then its neighbours of the other kind. Rates as the rules say (spec 2.5 b, c)."""
        own = self.rules.rates == "own"
        same = bool(self._labels[first] == label)
        count = float(self._counts[first])
        self._counts[first] = count + weight
        if own:
            rate = self._own_rate(count, weight, same)
            near_rate = rate * self.rules.neighbour_share
        else:
            rate, near_rate = self._rates
            after = max(1 / (count + weight), self.rules.rate_floor)
            self._rates = (after, after * self.rules.neighbour_share)
        winner = self._vectors[first]
        winner += (rate if same else -rate) * (x - winner)
        self._touched[first] = self.epoch
        moved = near[(self._labels[near] == label) != same]
        if moved.size:
            points = self._vectors[moved]
            # Rivals of a right winner are pushed away; allies of a wrong winner are pulled in.
            self._vectors[moved] = points + (-near_rate if same else near_rate) * (x - points)
            self._touched[moved] = self.epoch

    def _own_rate(self, count: float, weight: float, towards: bool) -> float:
        """Rate that equals `weight` successive wins after `count` of them, each with max(1/M, floor)."""
        floor = self.rules.rate_floor
        if weight == 1:
            return max(1 / (count + 1), floor)
        # Wins whose rate is 1/M; the rest go at the floor. Products of 1 - 1/M and 1 + 1/M telescope.
        early = min(max(float(math.floor(1 / floor - count)), 0.0), weight) if floor else weight
        late = weight - early
        if towards:
            stays = count / (count + early) if early else 1.0
            return float(1 - stays * (1 - floor) ** late)
        # Pushed again and again it would soon stop being the winner, so it is stopped at twice its distance.
        return math.expm1(min(math.log1p(early / (count + 1)) + late * math.log1p(floor), math.log(2)))

    def _reach(self, position: int) -> float:
        near = self._links.of(position)
        if not near.size:
            return math.inf
        gap = self._vectors.take(near, axis=0) - self._vectors[position]
        if self._weights is not None:
            gap *= self._weights
        squared: list[float] = np.einsum("ij,ij->i", gap, gap).tolist()
        label = self._labels[position]
        # Neighbours are few; a loop over them costs less than a handful of array operations.
        within: list[float] = []
        between: list[float] = []
        for same, value in zip((self._labels[near] == label).tolist(), squared, strict=True):
            (within if same else between).append(math.sqrt(value))
        if not between:
            return max(within)
        if not within:
            return min(between)
        mean = sum(within) / len(within)
        return min((b for b in between if b > mean), default=max(between))

    def dump(self) -> dict[str, Any]:
        """Everything `load` needs besides the rules: plain numbers and arrays."""
        return {**super().dump(), "rates": np.array(self._rates)}

    @classmethod
    def load(cls, dumped: Mapping[str, Any], rules: Rules = CLEAN) -> Ilvq:
        """The learner that was dumped, under `rules`.

        Edges older than the rules allow are left out. Raises ValueError when something is missing or does not fit.
        """
        try:
            vectors = np.asarray(dumped["vectors"])
            winner_rate, near_rate = (float(rate) for rate in dumped["rates"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"a dumped learner lacks or spoils {error}") from error
        if vectors.ndim != 2 or not (math.isfinite(winner_rate) and math.isfinite(near_rate)):
            raise ValueError("vectors is (n, d) and rates are finite")
        learner = cls(vectors.shape[1], rules, vectors.dtype)
        learner._rates = (winner_rate, near_rate)
        learner._fill(dumped, rules.age_old)
        return learner
