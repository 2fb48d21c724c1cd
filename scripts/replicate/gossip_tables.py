"""What prototype_gossip.py prints."""

from __future__ import annotations

import statistics
from typing import Any

from figures import (
    PUBLISHED,
    PUBLISHED_ALONE_BASE,
    bars,
    best_lone,
    filter_saving,
    kb_per_s,
    mean,
    order_against,
    spread,
    wire,
    wire_savings,
    worst,
)
from streams import NAMES
from tables import aligned

Runs = dict[str, list[dict[str, Any]]]


def score(runs: list[dict[str, Any]], name: str = "f1") -> str:
    """Mean, and spread where there is more than one run."""
    text = f"{mean(runs, name):.4f}"
    return f"{text} ± {spread(runs, name):.3f}" if len(runs) > 1 else f"{text}        "


def paper_table(report: dict[str, Runs]) -> str:
    """Part 1."""
    parts = []
    for key, runs in report.items():
        header = ["variant @ T", "F1", "published", "worst", "kB/s", "published", "wire kB/s", "used", "seeds"]
        rows = [header]
        for name, got in runs.items():
            theirs, kb = PUBLISHED[key].get(name, (None, None))
            received = mean(got, "prototypes_sent")
            rows.append(
                [
                    name,
                    score(got),
                    f"{theirs:.4f}" if theirs is not None else "-",
                    f"{worst(got):.3f}",
                    f"{kb_per_s(got):.1f}",
                    f"{kb:.1f}" if kb is not None else "-",
                    f"{statistics.fmean(wire(run) / run['duration_s'] for run in got) / 1000:.1f}",
                    f"{mean(got, 'prototypes_trained') / received:.1%}" if received else "-",
                    str(len(got)),
                ]
            )
        parts.append(f"{NAMES[key].title}: as published (5 agents, s = 4)\n{aligned(rows)}")
        parts[-1] += f"\nThe filter saves {filter_saving(runs):.1%} of base's bytes at T = 1."
        turned = order_against(key, runs)
        parts[-1] += "\nOrder of the variants: " + (
            "as published."
            if not turned
            else "; ".join(f"{two} minus {one} {ours:+.4f}, published {gap:+.4f}" for one, two, gap, ours in turned)
        )
    legend = (
        "kB/s: 105 bytes per prototype sent, the authors' accounting. wire: the same messages in our encoding, up and "
        "down.\nused: prototypes learnt from neighbours / received; with clustering one is learnt again and again."
    )
    return "\n\n".join([*parts, legend])


def beyond_table(report: dict[str, Runs]) -> str:
    """Part 2."""
    parts = []
    for key, runs in report.items():
        rows = [["", "F1", "worst", "kB on the wire", "kB at 105 bytes"]]
        published = PUBLISHED_ALONE_BASE[key]

        def row(title: str, got: list[dict[str, Any]], name: str = "f1", sent: bool = True) -> list[str]:
            traffic = f"{statistics.fmean(wire(run) for run in got) / 1000:.1f}" if sent else "0"
            paper = f"{mean(got, 'bytes_paper') / 1000:.1f}" if sent and "bytes_paper" in got[0] else "-"
            return [title, score(got, name), f"{worst(got, name):.3f}", traffic, paper]

        rows.append(row(f"no sharing, paper's learner (published {published[0]:.4f})", runs["alone"], sent=False))
        rows.append(row("no sharing, product's learner", runs["product"], "f1_alone", sent=False))
        rows += [row(name, got, sent=False) for name, got in runs.items() if name.startswith("lone ")]
        rows.append(row(f"paper's base, s = 4, T = 1 (published {published[1]:.4f})", runs["base"]))
        rows.append(row(f"base at the product's bytes, T = {runs['equal_share']:g}", runs["base at equal bytes"]))
        rows.append(row("product", runs["product"]))
        lines = [f"{NAMES[key].title}: the product over Mosquitto ({len(runs['product'])} seeds)", aligned(rows)]
        savings = ", ".join(f"{value:.2%} ({name})" for name, value in wire_savings(key, runs).items())
        lines.append(f"Bytes saved against base: {savings}.")
        bar, worst_bar = bars(runs)
        lines.append(f"max(alone, base) - 0.005: mean {bar:.4f}, worst agent {worst_bar:.4f}.")
        lines.append(_against_lone(runs))
        late_s = max(run["late_s"] for run in runs["product"])
        lines.append(f"Learning lagged behind the streams by at most {late_s:.1f} s of theirs.")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _against_lone(runs: Runs) -> str:
    best = best_lone(runs)
    if not best:
        return "Lone River learners: not run, River is not installed."
    ours = {"mean": mean(runs["product"], "f1"), "worst": worst(runs["product"])}
    said = []
    for what, (name, theirs) in best.items():
        verb = "wins over" if ours[what] >= theirs else "LOSES to"
        said.append(f"{what}: product {ours[what]:.4f} {verb} {name} {theirs:.4f}")
    return "Best lone River learner, " + "; ".join(said) + "."


def explanation_table(report: dict[str, Runs]) -> str:
    """What --explain found."""
    parts = []
    for key, runs in report.items():
        rows = [["variation at T = 1", "F1", "kB/s", "messages", "seeds"]]
        for name, got in runs.items():
            rows.append([name, score(got), f"{kb_per_s(got):.1f}", f"{mean(got, 'messages'):.0f}", str(len(got))])
        published = PUBLISHED[key]
        rows.append(["published base", f"{published['base @ 1'][0]:.4f}", f"{published['base @ 1'][1]:.1f}", "", ""])
        rows.append(
            ["published + filter", f"{published['+ filter @ 1'][0]:.4f}", f"{published['+ filter @ 1'][1]:.1f}", "", ""]
        )
        parts.append(f"{NAMES[key].title}\n{aligned(rows)}")
    return "\n\n".join(parts)
