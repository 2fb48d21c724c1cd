#!/usr/bin/env python3
"""Prototype gossip: the published method beside its published figures, and the product beside both.

P. Fernández-Piñeiro et al. "Towards efficient compression and communication for prototype-based decentralized
learning." arXiv 2411.09267, 2024. Published figures: the first author's result files (section 7 of the project's note).

1. As published, in simulated time: alone, base, + filter, + queue limit, + clustering, and base at the filter's bytes;
   5 agents, s = 4, T = 0.1 and 1, on Phishing and on "Electricity fixed".
2. Beyond the paper: the product over a real Mosquitto, every byte counted in both directions, against no sharing, the
   best lone River learner and the paper's base, on four streams, one of which drifts so that the paper's sharing hurts.

F1 is that of the positive class, test-then-train: mean over agents, then mean ± standard deviation over seeds. "Worst"
is the worst agent's, mean over seeds. On Phishing and Electricity fixed a seed changes arrival times and coin tosses
only, never the samples, so the spread there is the method's own. --check exits 1 and names each figure that falls
short. Parts 1 and 2 need the folder --data; part 2 needs Mosquitto; River is wanted for the lone learners.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before NumPy is imported: one thread per worker process

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import lone
import product
import simulated
from figures import LAST_T, beyond_shortfalls, faithful_shortfalls, mean
from gossip_tables import beyond_table, explanation_table, paper_table
from streams import FOLDER, NAMES, make

from edgeswarm.demo.broker import find_mosquitto, start_broker

PAPER_STREAMS = ("phishing", "electricity")
WORKERS = 2
EXPLANATIONS: dict[str, dict[str, Any]] = {
    "base as is": {},
    "base, sender never misses a sample": {"poll_s": 0.0},
    "base, device learns 180 per s": {"learn_rate_per_s": 180.0},
    "base, device learns 240 per s": {"learn_rate_per_s": 240.0},
    "base, messages 0.3 s late": {"delay_s": 0.3},
    "base, messages 0.6 s late": {"delay_s": 0.6},
    "base, messages 1 s late": {"delay_s": 1.0},
    "+ filter as is": {"filter_limit": 0.5},
    "+ filter, comparing takes no time": {"filter_limit": 0.5, "kernel_ns": 0.0},
    "+ filter, messages 0.6 s late": {"filter_limit": 0.5, "delay_s": 0.6},
    "+ clustering as is": {**simulated.QUEUE, **simulated.CLUSTER},
    "+ clustering, device learns 190 per s": {**simulated.QUEUE, **simulated.CLUSTER, "learn_rate_per_s": 190.0},
}
"""What could explain a difference to the published figures; see --explain."""

Report = dict[str, Any]


def say(text: str) -> None:
    """One line of progress, on stderr."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


class Pool:
    """Runs in worker processes; results arrive in lists under a name, in order of seeds."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor, self._asked = executor, list[tuple[str, Future[Any]]]()

    def ask(self, name: str, work: Callable[..., Any], *what: Any) -> None:
        """Have `work(*what)` done and put under `name`."""
        self._asked.append((name, self._executor.submit(work, *what)))

    def take(self) -> dict[str, list[Any]]:
        """Everything asked for since the last time."""
        result: dict[str, list[Any]] = {}
        for done, (name, future) in enumerate(self._asked, 1):
            result.setdefault(name, []).append(future.result())
            if done % 10 == 0 or done == len(self._asked):
                say(f"{done} of {len(self._asked)} runs")
        self._asked.clear()
        return result


def paper_part(pool: Pool, seeds: int, quick: bool, folder: Path) -> dict[str, Report]:
    """Part 1: for each stream, "variant @ T" to its runs."""
    say("part 1: the method as published")
    for key in PAPER_STREAMS:
        for name, settings in simulated.VARIANTS.items():
            if quick and name in ("alone, clustering", "+ queue limit", "+ clustering"):
                continue
            alone = name.startswith("alone")
            for share in (LAST_T,) if alone or quick else (0.1, LAST_T):
                count = min(seeds, 1) if alone or (quick and key == "electricity") else seeds
                for seed in range(count):
                    run = {**settings, "share_probability": share}
                    pool.ask(f"{key}|{name} @ {share:g}", simulated.run, key, seed, run, folder)
    report: dict[str, Report] = {key: {} for key in PAPER_STREAMS}
    _sort_in(pool.take(), report)
    for key in PAPER_STREAMS:
        share = equal_share(report[key], "+ filter")
        for seed in range(1 if quick else seeds):
            name = f"{key}|base at the filter's bytes @ {share:g}"
            pool.ask(name, simulated.run, key, seed, {"share_probability": share}, folder)
    _sort_in(pool.take(), report)
    return report


def equal_share(runs: Report, variant: str) -> float:
    """T at which base sends about as many bytes as `variant` at T = 1.

    Between the two T that were run, bytes follow a power of T (sets grow with it); with one T they are taken to grow in
    proportion to T ** 1.15, which is what the two showed.
    """
    wanted = mean(runs[f"{variant} @ {LAST_T:g}"], "bytes_paper")
    most = mean(runs[f"base @ {LAST_T:g}"], "bytes_paper")
    power = 1.15
    if "base @ 0.1" in runs:
        power = max(0.5, math.log10(most / mean(runs["base @ 0.1"], "bytes_paper")))
    return float(f"{min(1.0, (wanted / most) ** (1 / power)):.2g}")


def beyond_part(pool: Pool, seeds: int, quick: bool, folder: Path, paper: dict[str, Report]) -> dict[str, Report]:
    """Part 2: for each stream the product's runs, base's, "no sharing"'s and those of lone learners."""
    keys = ("phishing", "rotation") if quick else tuple(NAMES)
    report: dict[str, Report] = {key: {"product": []} for key in keys}
    say("part 2: the product over Mosquitto")
    with tempfile.TemporaryDirectory() as scratch, start_broker("mosquitto", Path(scratch)) as broker:
        for key in keys:
            for seed in range(seeds):
                speed = 2 * product.SPEED if quick else product.SPEED
                report[key]["product"].append(product.run(key, seed, folder, broker, speed))
            say(f"{NAMES[key].title}: {seeds} runs")
    say("part 2: no sharing, lone learners, base")
    for key in keys:
        if key in paper:
            report[key] |= {"base": paper[key]["base @ 1"], "alone": paper[key]["alone @ 1"]}
        else:
            for seed in range(seeds):
                pool.ask(f"{key}|base", simulated.run, key, seed, {}, folder)
                pool.ask(f"{key}|alone", simulated.run, key, seed, simulated.VARIANTS["alone"], folder)
        if lone.available():
            for name in lone.QUICK if quick else lone.LEARNERS:
                for seed in range(seeds if NAMES[key].seeded else 1):
                    pool.ask(f"{key}|lone {name}", _lone, name, key, seed, folder)
        # A pilot tells what base costs where it hardly shares; T is then set so that it sends what the product sent.
        pilot = 0.01
        pool.ask(f"{key}|pilot", simulated.run, key, 0, {"share_probability": pilot}, folder)
    _sort_in(pool.take(), report)
    for key in keys:
        wire = sum(run["bytes_up"] + run["bytes_down"] for run in report[key]["product"]) / seeds
        share = float(f"{pilot * wire / max(1, mean(report[key].pop('pilot'), 'bytes_wire')):.2g}")
        for seed in range(seeds):
            pool.ask(f"{key}|base at equal bytes", simulated.run, key, seed, {"share_probability": share}, folder)
        report[key]["equal_share"] = share
    _sort_in(pool.take(), report)
    return report


def explain_part(pool: Pool, seeds: int, folder: Path) -> dict[str, Report]:
    """What else the experiments may have done, at T = 1."""
    say("explanations")
    for key in PAPER_STREAMS:
        for name, given in EXPLANATIONS.items():
            settings = {knob: value for knob, value in given.items() if knob != "delay_s"}
            for seed in range(seeds if key == "phishing" else min(seeds, 3)):
                pool.ask(f"{key}|{name}", simulated.run, key, seed, settings, folder, given.get("delay_s", 0.0))
    report: dict[str, Report] = {key: {} for key in PAPER_STREAMS}
    _sort_in(pool.take(), report)
    return report


def _lone(name: str, key: str, seed: int, folder: Path) -> Report:
    return {"f1": lone.scores(name, make(key, seed, folder))}


def _sort_in(results: dict[str, list[Any]], report: dict[str, Report]) -> None:
    for name, runs in results.items():
        key, _, what = name.partition("|")
        report[key][what] = runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under a minute on two cores: fewer seeds and streams")
    text = "seeds of part 1, at least 1 (default 10; 2 with --quick); part 2 takes at most 5 of them"
    parser.add_argument("--seeds", type=int, help=text)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder with electricity.npz and phishing.npz")
    parser.add_argument("--json", action="store_true", help="print every figure of every run as one JSON object")
    parser.add_argument("--check", action="store_true", help="exit 1, naming the figure, when a promise is missed")
    parser.add_argument("--explain", action="store_true", help="instead: variations that could explain differences")
    options = parser.parse_args()
    seeds = options.seeds or (2 if options.quick else 10)
    if seeds < 1:
        parser.error("--seeds is at least 1")
    try:
        make("phishing", 0, options.data)
        make("electricity", 0, options.data)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    if not options.explain and find_mosquitto() is None:
        print("Mosquitto is not installed; part 2 needs it", file=sys.stderr)
        return 2
    if not options.explain and not lone.available():
        print("River is not installed (pip install river): no lone learners in part 2", file=sys.stderr)
    started = time.monotonic()
    with ProcessPoolExecutor(WORKERS) as executor:
        pool = Pool(executor)
        if options.explain:
            explained = explain_part(pool, seeds, options.data)
            print(json.dumps(explained, indent=1) if options.json else explanation_table(explained))
            return 0
        paper = paper_part(pool, seeds, options.quick, options.data)
        beyond = beyond_part(pool, 1 if options.quick else min(seeds, 5), options.quick, options.data, paper)
    missed = faithful_shortfalls(paper) + beyond_shortfalls(beyond)
    minutes = (time.monotonic() - started) / 60
    if options.json:
        print(json.dumps({"paper": paper, "beyond": beyond, "minutes": minutes, "missed": missed}, indent=1))
    else:
        print(paper_table(paper))
        print()
        print(beyond_table(beyond))
        print(f"\nTook {minutes:.1f} minutes with {WORKERS} processes, {seeds} seeds.")
        print("Every figure checked is as promised." if not missed else "Falls short:\n  " + "\n  ".join(missed))
    if options.check and missed:
        print("falls short: " + "; ".join(missed), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
