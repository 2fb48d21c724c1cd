#!/usr/bin/env python3
"""A training step on CUDA, and a thousand models in one call. Without a CUDA device it says so and ends with 0.

step:   gradient and momentum update of `torch-cuda` from a model file, beside an eager torch module of the same
        architecture on the same device, batch 32; parameters go to the device and back in ours, as they do on a board.
agents: gradients of many LeNet-5s, each with parameters and a batch of its own, in one `answer_all` and one by one.

swarm:  the same models as agents of a simulated swarm, a round of 1,000 that each train two steps, on the device beside
        two threads of the CPU (the latter from at most forty of them).

`--device cpu` runs the same lines on the CPU, to try the script; its figures mean nothing there and are not checked.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

BATCH, STEPS = 32, 20
LEAST_STEP_RATIO, LEAST_AGENTS_RATIO, LEAST_SWARM_RATIO = 1.0, 50.0, 20.0


def best(do: Callable[[], None], wait: Callable[[], None], rounds: int) -> float:
    """Seconds of the quickest round, the first one left out: it compiles."""
    times = []
    for _ in range(rounds + 1):
        wait()
        began = time.perf_counter()
        do()
        wait()
        times.append(time.perf_counter() - began)
    return min(times[1:])


def step(name: str, device: str, rounds: int) -> dict[str, float]:
    """Milliseconds of one step of ours and of torch eager, in epochs of STEPS steps."""
    import numpy as np
    import torch

    from edgeswarm.backends.base import LocalEpoch
    from edgeswarm.backends.torch import TorchBackend
    from edgeswarm.export.architectures import create
    from edgeswarm.export.build import build
    from edgeswarm.maths.optimisers import Optimiser, init

    model = build(name, 10)
    rng = np.random.default_rng(0)
    x = rng.random((BATCH * 4, *model.card.input.shape), np.float32)
    y = rng.integers(0, 10, len(x))
    backend, optimiser = TorchBackend(device), Optimiser(rate=0.01)
    backend.load(model)
    picks = {"private": rng.integers(0, len(x), (STEPS, BATCH)).astype(np.int32)}
    data = {"x": x, "y": y}
    epoch = LocalEpoch(
        model.card.hash, "ce", model.initial, data, picks, optimiser, init(optimiser, model.initial)
    )  # fmt: skip
    module = create(name, 10, 0, model.card.input.shape, (0.0,), (1.0,)).to(device)
    rule = torch.optim.SGD(module.parameters(), 0.01, momentum=0.9)

    def eager() -> None:
        rows, labels = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
        for places in picks["private"]:
            at = torch.from_numpy(places).to(device).long()
            rule.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(module(rows[at])[0], labels[at]).backward()
            rule.step()

    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    ours, theirs = best(lambda: backend.answer(epoch), wait, rounds), best(eager, wait, rounds)
    return {"ms": 1e3 * ours / STEPS, "torch_ms": 1e3 * theirs / STEPS, "ratio": theirs / ours}


def agents(count: int, device: str, rounds: int) -> dict[str, float]:
    """Milliseconds per agent, together and one by one (the latter from at most fifty of them)."""
    import numpy as np
    import torch

    from edgeswarm.backends.base import Gradient
    from edgeswarm.backends.torch import TorchBackend
    from edgeswarm.export.build import build

    model = build("lenet5", 10)
    rng = np.random.default_rng(1)
    backend = TorchBackend(device)
    backend.load(model)
    requests = [
        Gradient(
            model.card.hash, "ce", model.initial * np.float32(1 + 0.01 * rng.standard_normal()),
            {"x": rng.random((BATCH, 1, 28, 28), np.float32), "y": rng.integers(0, 10, BATCH)},
        )
        for _ in range(count)
    ]  # fmt: skip
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    some = requests[:50]
    alone = best(lambda: [backend.answer(each) for each in some] and None, wait, rounds) / len(some)
    together = best(lambda: backend.answer_all(requests) and None, wait, rounds) / count
    return {"agents": count, "ms_together": 1e3 * together, "ms_one_by_one": 1e3 * alone, "ratio": alone / together}


def swarm(count: int, device: str) -> dict[str, float]:
    """Seconds of a round of `count` agents that train a LeNet-5 each, and of the CPU's, per agent."""
    import numpy as np

    from edgeswarm.backends.torch import TorchBackend
    from edgeswarm.export.build import build
    from edgeswarm.maths.graphs import Topology
    from edgeswarm.sim.world import Stream, World
    from edgeswarm.strategies.base import equipped
    from edgeswarm.strategies.d_psgd import DPSGD

    model = build("lenet5", 10)
    rng = np.random.default_rng(2)

    def seconds(nodes: int, where: str, threads: int) -> float:
        backend = TorchBackend(where, threads)
        backend.load(model)
        names = tuple(f"n{i:04d}" for i in range(nodes))
        graph = Topology("ring", names)
        method = equipped(DPSGD(period_s=10.0, steps=2, batch=BATCH, window=64), 7, model, topology=graph)
        x = rng.random((64, model.card.input.size), np.float32)
        y = [model.card.labels[i] for i in rng.integers(0, 10, 64)]
        streams = {name: Stream(x, y, np.full(64, 1.0)) for name in names}
        circles = graph.graph(names[0], ()).neighbours
        world = World(method, streams, 0, backend=backend, packet_limit_bytes=1 << 28, circles=circles, history=False)
        world.run(15.0)
        began = time.perf_counter()
        world.run(25.0)
        return (time.perf_counter() - began) / nodes

    ours, theirs = seconds(count, device, 1), seconds(min(count, 40), "cpu", 2)
    return {"agents": count, "ms": 1e3 * ours, "cpu_ms": 1e3 * theirs, "ratio": theirs / ours}


def main() -> int:
    from report import end
    from report import parser as options_of

    parser = options_of(__doc__, "fewer rounds, LeNet-5 alone")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--agents", type=int, default=1000, help="models in one call")
    options = parser.parse_args()

    try:
        import torch
    except ImportError:
        print("torch is not installed, so there is nothing to measure", file=sys.stderr)
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no CUDA device here, so there is nothing to measure", file=sys.stderr)
        return 0
    rounds = 2 if options.quick else 7
    figures: dict[str, Any] = {
        "step": {
            name: step(name, options.device, rounds) for name in ("lenet5", "resnet8")[: 1 if options.quick else 2]
        },
        "agents": agents(options.agents, options.device, rounds),
        "swarm": swarm(options.agents, options.device),
    }
    missed = []
    if options.device == "cuda":
        for name, got in figures["step"].items():
            if got["ratio"] < LEAST_STEP_RATIO:
                missed.append(f"step ratio of {name} is {got['ratio']:.2f}, below {LEAST_STEP_RATIO:g}")
        if figures["agents"]["ratio"] < LEAST_AGENTS_RATIO:
            missed.append(f"agents ratio is {figures['agents']['ratio']:.1f}, below {LEAST_AGENTS_RATIO:g}")
        if figures["swarm"]["ratio"] < LEAST_SWARM_RATIO:
            missed.append(f"swarm ratio is {figures['swarm']['ratio']:.1f}, below {LEAST_SWARM_RATIO:g}")

    def show() -> None:
        for name, got in figures["step"].items():
            print(f"{name:8} {got['ms']:8.3f} ms a step   torch {got['torch_ms']:8.3f}   {got['ratio']:5.2f} times")
        got = figures["agents"]
        print(
            f"{got['agents']} LeNet-5: {got['ms_together']:.4f} ms each in one call, "
            f"{got['ms_one_by_one']:.4f} one by one, {got['ratio']:.1f} times"
        )
        got = figures["swarm"]
        print(
            f"swarm of {got['agents']}: {got['ms']:.3f} ms an agent and round, {got['cpu_ms']:.3f} on the CPU, "
            f"{got['ratio']:.1f} times"
        )

    return end(options, figures, missed, show)


if __name__ == "__main__":
    sys.exit(main())
