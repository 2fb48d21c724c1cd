#!/usr/bin/env python3
"""The simulator beside gossipy and Flower's, each in an environment of its own, and what a large swarm costs.

gossip: a classifier of 57 features (as spambase has), 4 rows a node, 1,000 nodes that hear 20 others each; in a round a
        node sends its model to one of them, merges what it was sent, and trains once on its rows. Node-rounds per
        second of one core, ours (`gossip_learning`: real messages through the codec and the simulated broker) beside
        gossipy's PUSH, with the examinations of its own scripts, a tenth of the nodes after each round, and without.
        `--check` asks for a ratio of 10 with examinations: gossipy's scripts make them in every round, so that is what
        a round takes there. The ratio without them is smaller; it is printed beside, and no limit is set for it.
flower: 100 clients, each with 40 rows and 8 steps of training in NumPy a round, in wall-clock time. Ours are agents of
        the same kind, as many, with the same rows and steps.
scale:  10 to 10,000 agents of the gossip case: seconds of one core per round, peak memory, and the exponent of a line
        fitted to their logarithms (1 is linear).

The peers are installed by pip into `--peers FOLDER`, or a temporary one. One line of gossipy 0.0.1 does not run with
today's scikit-learn and is replaced (the examination's AUC is a float already).
"""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

FEATURES, DEGREE, ROWS, TEST_ROWS = 57, 20, 4, 460
PACKAGES = {
    "gossipy": ("gossipy-dfl", "torchvision", "pyparsing", "networkx"),
    "flower": ("flwr[simulation]",),
}
PATCH = ("roc_auc_score(y_true, auc_scores).astype(float)", "float(roc_auc_score(y_true, auc_scores))")
LEAST_GOSSIPY_RATIO, LEAST_FLOWER_RATIO = 10.0, 20.0
FULL_SIZES = [10, 100, 1000, 10_000]
MOST_GIB, MOST_EXPONENT = 4.0, 1.1


# ---- ours ------------------------------------------------------------------------------------------------------------


def swarm(nodes: int, rows: int, steps: int, degree: int) -> Any:
    """A World of gossip learning, and the backend it computes with: torch where it is installed, else NumPy."""
    import numpy as np

    from edgeswarm.backends.choose import choose
    from edgeswarm.maths.graphs import Topology
    from edgeswarm.models.perceptron import perceptron
    from edgeswarm.sim.world import Stream, World
    from edgeswarm.strategies.base import equipped
    from edgeswarm.strategies.gossip_learning import GossipLearning

    model = perceptron(("0", "1"), np.zeros(FEATURES), np.ones(FEATURES), 2)
    backend, _ = choose(("torch", "reference"))
    backend.load(model)
    names = tuple(f"n{i:05d}" for i in range(nodes))
    graph = Topology("regular", names, degree=degree) if degree < nodes - 1 else Topology("full", names)
    method = GossipLearning(period_s=10.0, steps=steps, batch=32, window=max(8, rows), rate=0.1)
    rng = np.random.default_rng(0)
    streams = {}
    for name in names:
        x = rng.normal(size=(rows, FEATURES)).astype(np.float32)
        streams[name] = Stream(x, [str(int(row[0] > 0)) for row in x], np.full(rows, 1.0))
    circles = graph.graph(names[0], ()).neighbours
    world = World(
        equipped(method, 7, model, topology=graph), streams, 1, backend=backend, circles=circles, history=False
    )
    world.run(15.0)  # all have met, and had a round
    return world, backend


def ours(nodes: int, rounds: int, rows: int = ROWS, steps: int = 1, evaluated: float = 0.0) -> dict[str, float]:
    """Seconds of `rounds` rounds. evaluated: share of the nodes examined after each, on TEST_ROWS rows."""
    import numpy as np

    from edgeswarm.backends.base import Evaluate

    world, backend = swarm(nodes, rows, steps, min(DEGREE, nodes - 1))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(TEST_ROWS, FEATURES)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    names, examined = list(world.nodes), max(1, int(evaluated * nodes)) if evaluated else 0
    began, cpu = time.perf_counter(), time.process_time()
    right = 0.0
    for number in range(rounds):
        world.run(25.0 + 10.0 * number)
        chosen = [world.nodes[names[i]].agent for i in rng.choice(nodes, examined, replace=False)]
        found = backend.answer_all([Evaluate(a.strategy.card.hash, x, y, a.state.params) for a in chosen])
        right = sum(each.right / each.rows for each in found) / max(1, examined)
    return {
        "wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu, "accuracy": right,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "messages": sum(node.counters["messages_received"] for node in world.nodes.values()) / nodes,
    }  # fmt: skip


def child(*arguments: Any) -> dict[str, float]:
    """`ours` in a process of its own: its memory is its own, and nothing is warm."""
    return printed([sys.executable, str(Path(__file__).resolve()), "--one", json.dumps(arguments)])


# ---- peers -----------------------------------------------------------------------------------------------------------


def printed(command: list[str]) -> Any:
    """The JSON object on the last line of what a command prints. Raises RuntimeError with its last words."""
    alone = {**os.environ, "RAY_ADDRESS": "local"}  # Flower's Ray would wait for a cluster that once ran here
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=alone)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"{Path(command[1]).name} failed: {(done.stderr or done.stdout).strip()[-400:]}")
    return json.loads(lines[-1])


def installed(name: str, folder: Path) -> str:
    """The Python of an environment with that peer, made by pip unless it is there already."""
    home = folder / name
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
    if not (home / "complete").exists():
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES[name]], check=True)
        for handler in home.glob("lib/*/site-packages/gossipy/model/handler.py"):
            handler.write_text(handler.read_text().replace(*PATCH))
        (home / "complete").touch()
    return str(python)


def beside_gossipy(python: str, nodes: int, rounds: int, pairs: int) -> dict[str, Any]:
    """Node-rounds per second of one core, both, without and with examinations; medians of `pairs` runs in turns."""
    figures: dict[str, Any] = {"nodes": nodes, "rounds": rounds}
    case = str(ROOT / "scripts/bench/peers/gossipy_case.py")
    for name, evaluated in (("", 0.0), ("examined_", 0.1)):
        own_s, theirs_s = [], []
        for _ in range(pairs):
            own_s.append(child(nodes, rounds, ROWS, 1, evaluated)["cpu_s"])
            if python:
                theirs_s.append(printed([python, case, str(nodes), str(rounds), str(ROWS), str(evaluated)])["cpu_s"])
        figures[f"{name}ours_per_s"] = nodes * rounds / statistics.median(own_s)
        if python:
            figures[f"{name}gossipy_per_s"] = nodes * rounds / statistics.median(theirs_s)
            figures[f"{name}ratios"] = [theirs / own for own, theirs in zip(own_s, theirs_s, strict=True)]
            figures[f"{name}ratio"] = statistics.median(figures[f"{name}ratios"])
    return figures


def beside_flower(python: str, clients: int, rounds: int) -> dict[str, Any]:
    """Client-rounds per second, by the clock on the wall."""
    own = child(clients, rounds, 40, 8)
    figures: dict[str, Any] = {"clients": clients, "rounds": rounds, "ours_per_s": clients * rounds / own["wall_s"]}
    if python:
        case = str(ROOT / "scripts/bench/peers/flower_case.py")
        theirs = printed([python, case, str(clients), str(rounds), "40", "8"])
        figures["flower_per_s"] = clients * rounds / theirs["wall_s"]
        figures["ratio"] = theirs["wall_s"] / own["wall_s"]
    return figures


def scale(sizes: list[int], rounds: int) -> dict[str, Any]:
    """Cost of a round by the number of agents."""
    found = [{"nodes": nodes, **child(nodes, rounds)} for nodes in sizes]
    x = [math.log(each["nodes"]) for each in found]
    y = [math.log(each["cpu_s"] / rounds) for each in found]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    return {
        "exponent": slope,
        "sizes": [{"nodes": e["nodes"], "cpu_s": e["cpu_s"] / rounds, "peak_mib": e["peak_mib"]} for e in found],
    }


def missed(figures: dict[str, Any]) -> list[str]:
    """Promises that were not kept, or not looked at."""
    short = []
    for name, where, least in (
        ("gossipy ratio with examinations", figures["gossip"].get("examined_ratio"), LEAST_GOSSIPY_RATIO),
        ("Flower ratio", figures["flower"].get("ratio"), LEAST_FLOWER_RATIO),
    ):
        if where is None:
            short.append(f"{name} was not measured")
        elif where < least:
            short.append(f"{name} is {where:.1f}, below {least:g}")
    if figures["scale"]["exponent"] > MOST_EXPONENT:
        short.append(f"exponent is {figures['scale']['exponent']:.2f}, above {MOST_EXPONENT:g}")
    largest = figures["scale"]["sizes"][-1]
    if largest["peak_mib"] > 1024 * MOST_GIB:
        short.append(f"{largest['nodes']} agents take {largest['peak_mib'] / 1024:.1f} GiB, above {MOST_GIB:g}")
    return short


def show(figures: dict[str, Any]) -> None:
    """For people."""
    gossip, flower = figures["gossip"], figures["flower"]
    for name, text in (("", "no examinations"), ("examined_", "a tenth examined")):
        theirs = ""
        if f"{name}ratio" in gossip:
            ratios = gossip[f"{name}ratios"]
            spread = f"{gossip[f'{name}ratio']:5.1f} times ({min(ratios):.1f} to {max(ratios):.1f})"
            theirs = f"   gossipy {gossip[f'{name}gossipy_per_s']:8.0f}   {spread}"
        print(f"gossip, {gossip['nodes']} nodes, {text:16} {gossip[f'{name}ours_per_s']:8.0f} node-rounds/s{theirs}")
    theirs = f"   Flower {flower['flower_per_s']:8.1f}   {flower['ratio']:5.1f} times" if "ratio" in flower else ""
    print(f"flower, {flower['clients']} clients             {flower['ours_per_s']:8.0f} client-rounds/s{theirs}")
    for each in figures["scale"]["sizes"]:
        print(f"scale {each['nodes']:6} agents {each['cpu_s']:8.3f} s a round   {each['peak_mib']:7.0f} MiB")
    print(f"exponent {figures['scale']['exponent']:.2f}")


def main() -> int:
    from report import end
    from report import parser as options_of

    parser = options_of(__doc__, "200 nodes, up to 1,000 agents, without Flower")
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments; made where they are missing")
    parser.add_argument("--without-peers", action="store_true", help="ours alone: nothing is installed")
    parser.add_argument("--one", help="one of our cases, as JSON; prints its figures")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(ours(*json.loads(options.one))))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.peers or Path(temporary)
        peers = {name: "" if options.without_peers or (options.quick and name == "flower") else installed(name, folder)
                 for name in PACKAGES}  # fmt: skip
        nodes, rounds, pairs, sizes = (200, 2, 1, [10, 100, 1000]) if options.quick else (1000, 10, 5, FULL_SIZES)
        figures = {
            "gossip": beside_gossipy(peers["gossipy"], nodes, rounds, pairs),
            "flower": beside_flower(peers["flower"], 100, 3),
            "scale": scale(sizes, min(rounds, 5)),
        }
    return end(options, figures, missed(figures), lambda: show(figures))


if __name__ == "__main__":
    sys.exit(main())
