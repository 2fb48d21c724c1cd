#!/usr/bin/env python3
"""Global update tracking: what the paper claims, what its formulas imply, and what the product adds, measured.

S. A. Aketi, A. Hashemi, K. Roy, "Global Update Tracking", arXiv 2305.04792, NeurIPS 2023. The paper's tables could not
be had; its claims are those of the abstract, the "lines" those of the project's specification, section 12.

1. Quadratics in float64: bias, equality of forms, stability, staleness (tests/maths/test_update_tracking.py has them).
2. LeNet-5 on MNIST, a ring of 16, 1,000 images each, 310 iterations of 32, Dirichlet alpha 0.1 and 0.01: every
   method in lock-step rounds of the product (sim.World, real codec), the mean of the 16 local models on the test set.
   Pixels are from 0 to 1, and for the main arms normalised, too. Undamped momentum falls to chance on some seeds at the
   common rate, 0.1, on either. The specification asks for a rate for each method (section 8, trap 5), so that its line
   is judged at 0.03, on normalised images.
3. Beyond the paper: fewer bytes; 10 and 30 % of messages lost; a third of the agents asleep at any time. Spells of
   sleep last three rounds on average; the run then takes half as many rounds again, so that each agent trains as often.

--full does part 2 and 3 on CIFAR-10 instead. One run is one thread; --jobs of them at a time.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before NumPy is imported: one thread per worker process

import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import campaign
import report
from tables import Asked, Line, Verdict, drawn, lines_table, mean, missed, of
from tracking_arms import ALPHAS, ARMS, DEFAULT, FULL, LOST, NORMALISED, QUICK, QUICK_ARMS, play

Runs = dict[str, list[dict[str, float]]]
"""By "<arm> @ <alpha>", one run for each seed."""
NAMES = [f"{arm} @ {alpha:g}" for alpha in ALPHAS for arm in ARMS]
Value = Callable[[Runs], float]


def figure(arm: str, alpha: float, what: str) -> Value:
    """Mean over seeds. It raises what `tables.of` and `tables.mean` raise."""
    return lambda runs: mean(run[what] for run in of(runs, f"{arm} @ {alpha:g}", NAMES))


def less(one: Value, other: Value) -> Value:
    """Their difference."""
    return lambda runs: one(runs) - other(runs)


def gap(one: str, other: str, alpha: float, what: str = "mean") -> Value:
    """A figure of the one arm less that of the other."""
    return less(figure(one, alpha, what), figure(other, alpha, what))


def ratio(one: str, other: str, alpha: float, what: str) -> Value:
    """A figure of the one arm over that of the other."""
    above, below = figure(one, alpha, what), figure(other, alpha, what)
    return lambda runs: above(runs) / below(runs)


def quadratic_lines(facts: dict[str, float]) -> list[Line]:
    """Lines 1 and 6 of the specification, on quadratics."""

    def line(claim: str, wanted: str, name: str, met: Callable[[float], bool]) -> Line:
        return Line(claim, wanted, f"{facts[name]:.3g}", met(facts[name]))

    tenth = "within 10 %"
    lines = [
        line("compact form is the program", "1e-10", "forms differ by", lambda v: v < 1e-10),
        line("product form is the method", "1e-10", "product form differs by", lambda v: v < 1e-10),
        line("mean moves as gradient descent", "1e-10", "mean gradient missed by", lambda v: v < 1e-10),
        line("consensus 0.9 / D-PSGD", "0.10-0.15", "consensus, GUT 0.9 / D-PSGD", lambda v: 0.1 <= v <= 0.15),
        line("Dyck diverges at 0.55", "> 1e6", "largest number, Dyck, mu 0.55", lambda v: v > 1e6),
        line("beta + mu > 1 diverges", "> 1e6", "largest number, ring, beta 0.9, mu 0.15", lambda v: v > 1e6),
        line("lazy W bears 0.9", "< 10", "largest number, Dyck lazy, mu 0.9", lambda v: v < 10),
    ]
    for loss in ("10%", "30%"):
        name = f"slow-down / formula, {loss} lost"
        lines.append(line(f"newest copies slow down, {loss} lost", tenth, name, lambda v: abs(v - 1) <= 0.1))
        name = f"slow-down of the product form, {loss} lost"
        lines.append(line(f"product form does not, {loss} lost", "<= 1.1", name, lambda v: v <= 1.1))
    name = "mean off by, 10% of differences lost, of the way"
    return [*lines, line("10 % lost differences wreck it", ">= 0.2", name, lambda v: v >= 0.2)]


def asked(claim: str, wanted: str, value: Value, met: Callable[[float], bool] | None = None, unit: str = "") -> Asked:
    """A line on one number; without `met` it only asks for a report."""

    def judge(runs: Runs) -> Verdict:
        found = value(runs)
        return f"{found:+.2f}{unit}", met(found) if met else None

    return Asked(claim, wanted, judge)


def swarm_lines() -> list[Asked]:
    """Lines 2 to 6 of the specification, and what the product adds."""
    same_traffic = ratio("GUT 0.9", "D-PSGD", 0.1, "bytes")  # topics hold the name of the method
    tracking = ratio("gradient tracking", "D-PSGD", 0.1, "bytes_per_round")
    lines = [
        asked("same traffic as D-PSGD", "1 +- 0.001", same_traffic, lambda v: abs(v - 1) < 0.001, "x"),
        asked("gradient tracking twice that", "2", tracking, lambda v: abs(v - 2) < 0.01, "x"),
    ]
    for alpha, least in ((0.1, 1.0), (0.01, 5.0)):
        at = f"alpha {alpha:g}"
        lines += [*unlike_data(alpha, at, least), *momentum(alpha, at), *traffic(alpha, at), *hard_times(alpha, at)]
    return lines


def unlike_data(alpha: float, at: str, least: float) -> Iterator[Asked]:
    """Lines 3 and 4."""
    better, worst = (gap("GUT 0.9", "D-PSGD", alpha, what) for what in ("mean", "worst"))
    yield asked(f"GUT 0.9 - D-PSGD, {at}", f">= {least:g}", better, lambda v: v >= least)
    yield asked(f"  the worst agent's less that, {at}", ">= 0", less(worst, better), lambda v: v >= 0)
    apart = ratio("GUT 0.9", "D-PSGD", alpha, "consensus")
    yield asked(f"  consensus distance, {at}", "<= 1/3", apart, lambda v: v <= 1 / 3, "x")
    yield asked(f"{NORMALISED}GUT 0.9 - D-PSGD, {at}", "", gap(f"{NORMALISED}GUT 0.9", f"{NORMALISED}D-PSGD", alpha))


def momentum(alpha: float, at: str) -> Iterator[Asked]:
    """Line 5, at a rate that undamped momentum bears; and what becomes of it at that of all others."""
    calm, plain = ", rate 0.03", "QG-DSGDm 0.9, as run by the authors"
    for mu in ("0.03", "0.06"):
        tracked = f"QG-GUTm 0.9, {mu}"
        learnt = gap(f"{NORMALISED}{tracked}{calm}", f"{NORMALISED}D-PSGD", alpha)
        yield asked(f"QG-GUTm {mu}, rate 0.03, is stable: - D-PSGD, {at}", "> 0", learnt, lambda v: v > 0)
        more = gap(f"{NORMALISED}{tracked}{calm}", f"{NORMALISED}{plain}{calm}", alpha)
        yield asked(f"QG-GUTm {mu} - QG-DSGDm, rate 0.03, {at}", ">= -2", more, lambda v: v >= -2)
        for images in ("", NORMALISED):
            yield asked(f"{images}QG-GUTm {mu} - D-PSGD, {at}", "", gap(f"{images}{tracked}", f"{images}D-PSGD", alpha))


def traffic(alpha: float, at: str) -> Iterator[Asked]:
    """Beyond the paper: the product's form, and fewer bytes."""
    for images in ("", NORMALISED):
        paper, ours = f"{images}GUT 0.9", f"{images}product GUT 0.9"
        same, coded = gap(ours, paper, alpha), gap(f"{ours}, entropy", paper, alpha)
        yield asked(f"{images}product form - paper's, {at}", "within 0.5", same, lambda v: abs(v) <= 0.5)
        yield asked(f"{images}entropy-coded differences - paper's, {at}", ">= -0.5", coded, lambda v: v >= -0.5)
        saved = ratio(paper, f"{ours}, entropy", alpha, "bytes")
        yield asked(f"  {images}fewer bytes, {at}", ">= 8", saved, lambda v: v >= 8, "x")
    local = "product GUT 0.9, int8, 2 steps"
    yield asked(f"int8, 2 steps - paper's, {at}", "", gap(local, "GUT 0.9", alpha))
    yield asked(f"  fewer bytes, int8, 2 steps, {at}", "", ratio("GUT 0.9", local, alpha, "bytes"), unit="x")


def hard_times(alpha: float, at: str) -> Iterator[Asked]:
    """Line 6, and beyond the paper: messages lost, agents asleep."""
    for what in (*(f"{loss:.0%} lost" for loss in LOST), "a third asleep"):
        own = f"product GUT 0.8, {what}"
        against = gap(own, f"D-PSGD, {what}", alpha)
        yield asked(f"product GUT - D-PSGD, {what}, {at}", ">= 0", against, lambda v: v >= 0)
        if alpha == 0.01:
            yield asked(f"  {what}, - D-PSGD that loses nothing", "> 0", gap(own, "D-PSGD", alpha), lambda v: v > 0)
    for loss in LOST:
        coded = f"product GUT 0.8, entropy, {loss:.0%} lost"
        against, saved = gap(coded, f"D-PSGD, {loss:.0%} lost", alpha), ratio("GUT 0.9", coded, alpha, "bytes")
        yield asked(f"  entropy-coded, {loss:.0%} lost, {at}", ">= 0", against, lambda v: v >= 0)
        yield asked(f"  fewer bytes, {loss:.0%} lost, {at}", "", saved, unit="x")
    asks = gap("product GUT 0.8, 30% lost", "D-PSGD that asks, 30% lost", alpha)
    yield asked(f"product GUT - D-PSGD, both ask again, 30% lost, {at}", ">= 0", asks, lambda v: v >= 0)
    silent = gap("product GUT 0.8 that does not ask, 30% lost", "D-PSGD, 30% lost", alpha)
    yield asked(f"product GUT - D-PSGD, neither asks, 30% lost, {at}", ">= 0", silent, lambda v: v >= 0)
    wrecked = figure("GUT 0.9, differences, 10% lost", alpha, "mean")
    yield asked(f"10% of differences lost wreck it, {at}", "< 30 %", wrecked, lambda v: v < 30)
    stale = gap("GUT 0.9, 10% lost", "D-PSGD", alpha)
    yield asked(f"newest copies, 10% lost, - D-PSGD that loses nothing, {at}", "", stale)
    if alpha == 0.01:
        bears = gap("GUT 0.5, own model for what is lost, 10% lost", "D-PSGD, 10% lost", alpha)
        yield asked(f"own model for what is lost, - D-PSGD, 10% lost, {at}", ">= 2", bears, lambda v: v >= 2)


def runs_table(runs: Runs) -> str:
    """Every arm: mean accuracy over agents and seeds, its spread over seeds, the worst agent, consensus, traffic."""
    width = max(map(len, runs), default=0)
    rows = [f"{'arm @ alpha':{width}} {'mean':>6} {'±':>5} {'worst':>6} {'apart':>7} {'MB sent':>8} {'s':>5}"]
    for name, found in runs.items():
        means = [each["mean"] for each in found]
        spread = statistics.stdev(means) if len(means) > 1 else 0.0
        of = {key: statistics.fmean(each[key] for each in found) for key in found[0]}
        row = f"{name:{width}} {of['mean']:6.1f} {spread:5.1f} {of['worst']:6.1f} {of['consensus']:7.3f}"
        rows.append(f"{row} {of['bytes'] / 1e6:8.1f} {of['seconds']:5.0f}")
    return "\n".join(rows)


def main() -> int:
    """The script; its exit code."""
    parser = report.parser(__doc__, f"{QUICK.title}, one seed, few arms: its accuracies decide nothing")
    options = campaign.options(parser, f"in place of MNIST: {FULL.title} (hours)", "ours was developed on seeds 1 to 3")
    from quadratics import facts

    tier = FULL if options.full else QUICK if options.quick else DEFAULT
    wanted = campaign.arms(options, QUICK_ARMS if options.quick else ARMS)
    if tier.normalised:  # all are
        wanted = [arm for arm in wanted if not arm.startswith(NORMALISED)]
    jobs = [(arm, alpha, seed) for alpha in ALPHAS for seed in campaign.seeds(options) for arm in wanted]
    known = facts()
    runs: Runs = {f"{arm} @ {alpha:g}": [] for alpha in ALPHAS for arm in wanted}
    work = partial(play, tier, options.data)
    for (arm, alpha, _), found in campaign.played(work, jobs, options.jobs, lambda each: f"{each['mean']:.1f}"):
        runs[f"{arm} @ {alpha:g}"].append(found)
    lines = [*quadratic_lines(known), *drawn(() if options.quick else swarm_lines(), runs)]
    figures = {"tier": tier.title, "quadratics": known, "runs": runs, "lines": [asdict(line) for line in lines]}

    def show() -> None:
        print(tier.title, runs_table(runs), lines_table(lines), sep="\n\n")

    return report.end(options, figures, missed(lines), show)


if __name__ == "__main__":
    sys.exit(main())
