#!/usr/bin/env python3
"""How fast does the learner learn, and does its cost grow linearly in prototypes and in dimensions?

It informs two decisions: how many samples per second one small core can be promised, and whether a larger cap on
prototypes or a wider encoder would cost more than its share.

How it is measured. One thread, one process. Samples are drawn once, before any clock runs: 8 uniform numbers, turned
into d features by a matrix with orthonormal columns, so that distances, and with them every decision of the learner,
are the same for every d. The class is that of the nearest of 16 fixed points, modulo 2. The set is held at exactly P
prototypes: it is filled with P samples, denoising is off, and whenever a sample becomes a prototype the oldest one is
removed, on the clock. Our learner and River's kNN (defaults) see the same samples in turns, chunk by chunk; figures
are medians over chunks. kNN starts with a full window and, being slower, gets a tenth of each chunk. The ratio compares
predict + learn of both, as streams are scored; learn alone is printed too. The clock is the process's CPU time, so that
other programs on the machine do not count; `learn_samples_per_s_wall` is the same by the wall clock. Exponents are the
slope of log(median time of one learn) over log(P) and log(d), by least squares over the upper half of the sizes: below
that the fixed cost of a call hides the growth.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # read once, when NumPy is imported

import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edgeswarm.maths.ilvq import CLEAN, Ilvq  # noqa: E402

LEAST_SAMPLES_PER_S = 10_000
LEAST_RATIO = 3.0
MOST_EXPONENT = 1.1

PROTOTYPES, DIMENSIONS = 250, 8
SIZES = (64, 128, 256, 512, 1024, 2048)
WIDTHS = (8, 16, 32, 64, 128, 256, 512)


@dataclass
class Stream:
    """Endless labelled samples in d features that lie in 8 dimensions of their own."""

    d: int
    seed: int = 0

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self._anchors = rng.random((16, 8))
        self._turn = np.linalg.qr(rng.normal(size=(self.d, 8)))[0].T
        self._rng = np.random.default_rng(self.seed + 1)

    def take(self, n: int) -> tuple[list[np.ndarray], list[int]]:
        z = self._rng.random((n, 8))
        nearest = ((z[:, None] - self._anchors) ** 2).sum(axis=2).argmin(axis=1)
        return list(z @ self._turn), (nearest % 2).tolist()


def held(prototypes: int, stream: Stream) -> Ilvq:
    """A learner that holds `prototypes` samples and has linked them up by learning twice as many."""
    learner = Ilvq(stream.d, replace(CLEAN, denoise="off"))
    for x, label in zip(*stream.take(prototypes), strict=True):
        learner.insert(x, label, 1)
    learn(learner, prototypes, *stream.take(2 * prototypes))
    return learner


def learn(learner: Ilvq, prototypes: int, rows: list[np.ndarray], labels: list[int], answer: bool = False) -> None:
    """Learn the samples, each after a prediction if `answer`; at a cap of `prototypes` the oldest makes room."""
    for x, label in zip(rows, labels, strict=True):
        if answer:
            learner.predict(x[None])
        if learner.learn(x, label).inserted and len(learner) > prototypes:
            learner.remove([0])


def seconds(work: Callable[[], None]) -> float:
    """CPU time of this process for `work`."""
    start = time.process_time()
    work()
    return time.process_time() - start


def against_river(chunks: int, chunk: int) -> dict[str, float]:
    """Samples per second of both learners, medians over interleaved chunks."""
    from river.neighbors import KNNClassifier

    stream = Stream(DIMENSIONS)
    learner = held(PROTOTYPES, stream)
    knn = KNNClassifier()
    for x, label in zip(*stream.take(1500), strict=True):  # more than its default window of 1000
        knn.learn_one(dict(enumerate(x.tolist())), label)

    def river(rows: list[np.ndarray], labels: list[int], answer: bool) -> float:
        named = [dict(enumerate(x.tolist())) for x in rows]  # River's own form of a sample, made off the clock

        def work() -> None:
            for x, label in zip(named, labels, strict=True):
                if answer:
                    knn.predict_one(x)
                knn.learn_one(x, label)

        return seconds(work) / len(rows)

    def ours(rows: list[np.ndarray], labels: list[int], answer: bool) -> float:
        return seconds(lambda: learn(learner, PROTOTYPES, rows, labels, answer)) / len(rows)

    times: dict[str, list[float]] = {"learn": [], "both": [], "river_learn": [], "river_both": []}
    first = int(learner.ids[-1])
    for _ in range(chunks):
        for what, answer in (("learn", False), ("both", True)):
            rows, labels = stream.take(chunk)
            times[what].append(ours(rows, labels, answer))
            times["river_" + what].append(river(rows[: chunk // 10], labels[: chunk // 10], answer))
    inserted = int(learner.ids[-1]) - first
    wall = []
    for _ in range(chunks):
        rows, labels = stream.take(chunk)
        start = time.perf_counter()
        learn(learner, PROTOTYPES, rows, labels)
        wall.append((time.perf_counter() - start) / chunk)
    middle = {name: statistics.median(values) for name, values in times.items()}
    return {
        "learn_samples_per_s": 1 / middle["learn"],
        "learn_samples_per_s_wall": 1 / statistics.median(wall),
        "predict_and_learn_samples_per_s": 1 / middle["both"],
        "river_knn_learn_samples_per_s": 1 / middle["river_learn"],
        "river_knn_predict_and_learn_samples_per_s": 1 / middle["river_both"],
        "ratio_predict_and_learn": middle["river_both"] / middle["both"],
        "ratio_learn": middle["river_learn"] / middle["learn"],
        "prototypes_held": float(len(learner)),
        "share_of_samples_inserted": inserted / (2 * chunks * chunk),
    }


def growth(cases: list[tuple[int, int]], chunks: int, chunk: int) -> list[float]:
    """Median seconds of one learn for each (prototypes, dimensions), chunks taken in turns."""
    streams = [Stream(d) for _, d in cases]
    learners = [held(p, stream) for (p, _), stream in zip(cases, streams, strict=True)]
    times: list[list[float]] = [[] for _ in cases]
    for _ in range(chunks):
        for (p, _), stream, learner, spent in zip(cases, streams, learners, times, strict=True):
            rows, labels = stream.take(chunk)
            spent.append(seconds(lambda: learn(learner, p, rows, labels)) / chunk)  # noqa: B023
    return [statistics.median(spent) for spent in times]


def exponent(sizes: tuple[int, ...], times: list[float]) -> float:
    """Slope of log time over log size, fitted over the upper half of the sizes."""
    upper = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[upper:]), np.log(times[upper:]), 1)[0])


def shortfalls(figures: dict[str, float]) -> list[str]:
    """One line for each figure that misses what is promised."""
    missed = []
    for name, least in (("learn_samples_per_s", LEAST_SAMPLES_PER_S), ("ratio_predict_and_learn", LEAST_RATIO)):
        if figures[name] < least:
            missed.append(f"{name} is {figures[name]:.4g}, below {least:g}")
    for name in ("exponent_prototypes", "exponent_dimensions"):
        if figures[name] > MOST_EXPONENT:
            missed.append(f"{name} is {figures[name]:.3f}, above {MOST_EXPONENT:g}")
    return missed


def main() -> int:
    from report import end
    from report import parser as options_of

    parser = options_of(__doc__, "fewer repeats")
    options = parser.parse_args()

    chunks, chunk = (9, 1000) if options.quick else (31, 2000)
    figures = against_river(chunks, chunk)
    by_size = growth([(p, DIMENSIONS) for p in SIZES], chunks, chunk // 5)
    by_width = growth([(PROTOTYPES, d) for d in WIDTHS], chunks, chunk // 5)
    figures["exponent_prototypes"] = exponent(SIZES, by_size)
    figures["exponent_dimensions"] = exponent(WIDTHS, by_width)
    times = {
        "learn_us_by_prototypes": {str(p): 1e6 * t for p, t in zip(SIZES, by_size, strict=True)},
        "learn_us_by_dimensions": {str(d): 1e6 * t for d, t in zip(WIDTHS, by_width, strict=True)},
    }

    def show() -> None:
        print(f"d = {DIMENSIONS}, {PROTOTYPES} prototypes held, one thread, medians of {chunks} chunks")
        for name, value in figures.items():
            print(f"  {name:44} {value:12.4g}")
        for fixed, name, sizes, spent in (
            (f"d = {DIMENSIONS}", "P", SIZES, by_size),
            (f"P = {PROTOTYPES}", "d", WIDTHS, by_width),
        ):
            shown = "  ".join(f"{name}={size}: {1e6 * t:.1f}" for size, t in zip(sizes, spent, strict=True))
            print(f"  one learn in us, {fixed}:  {shown}")

    return end(options, {**figures, **times}, shortfalls(figures), show)


if __name__ == "__main__":
    sys.exit(main())
