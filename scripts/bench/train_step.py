#!/usr/bin/env python3
"""How fast does a board train and serve with plain onnxruntime, beside torch eager on the same processor?

It informs whether a small board needs torch at all: the `onnx` backend is to be faster than torch eager on small
models, about as fast on deep ones, in a fraction of the memory, and ready at once.

Models are built here (`edgeswarm.export.build`) and measured in processes of their own, one thread each, batch 32:

step:       one process with both; a LocalEpoch of the backend and as many steps of torch (cross-entropy, SGD with
            momentum 0.9) take turns. Ratio: torch's time over ours, of the tenth percentiles of all turns, in brackets
            the tenth and ninetieth percentile of the ratio turn by turn. The clock is the process's CPU time, so that
            other programs on the machine do not count.
memory:     peak resident memory (VmHWM) of a process that trains and imports edgeswarm and onnxruntime alone; torch's
            in one of its own. first step: from starting such a process to the end of its first step, by the wall clock,
            the quickest of several.
inference:  one sample at a time through the backend, weights baked into the graph, against torch eager in inference
            mode: LeNet-5 in float32, and ResNet-8 in int8 (static, calibrated) against torch's float32.

`--quick` leaves ResNet-20 out. `--models` names a folder for the built models, which a second run then reads.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # read once, when NumPy is imported

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

BATCH, ROWS = 32, 64
MODELS = {"mlp": "MLP 784-200-10", "lenet5": "LeNet-5", "resnet8": "ResNet-8", "resnet20": "ResNet-20"}
SLOW_TO_BUILD = ("resnet8", "resnet20")
LEAST_RATIO = {"mlp": 1.5, "lenet5": 1.5, "resnet8": 0.8, "resnet20": 0.8}
MOST_PEAK_MIB = {"mlp": 72.0, "lenet5": 80.0, "resnet8": 130.0}
MOST_FIRST_STEP_S = 0.5
LEAST_INFERENCE_RATIO = {"lenet5": 4.0, "resnet8_int8": 3.0}


# ---- in processes of their own --------------------------------------------------------------------------------------


def samples(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """ROWS samples and their labels, the same in every process; without numpy.random, which a board does not load."""
    import numpy as np

    count = ROWS * math.prod(shape)
    x = np.sin(np.arange(count, dtype=np.float32) * np.float32(0.7)) ** 2
    return x.reshape(ROWS, *shape), np.arange(ROWS) * 7 % 10


class Ours:
    """The onnx backend with one model of a file, training."""

    def __init__(self, path: str) -> None:
        import numpy as np

        from edgeswarm.backends.onnx import OnnxBackend
        from edgeswarm.maths.optimisers import Optimiser, init
        from edgeswarm.models.file import read

        self.model = read(Path(path))
        self.backend = OnnxBackend(threads=1)
        self.backend.load(self.model)
        x, y = samples(self.model.card.input.shape)
        self.data = {"x": x, "y": y, "w": np.ones(ROWS, np.float32)}
        self.optimiser = Optimiser(kind="momentum", rate=1e-3)
        self.params, self.moments = self.model.initial, init(self.optimiser, self.model.initial)

    def train(self, steps: int) -> None:
        """So many steps, as an agent asks for them."""
        import numpy as np

        from edgeswarm.backends.base import LocalEpoch

        picks = (np.arange(steps * BATCH, dtype=np.int32) % ROWS).reshape(steps, BATCH)
        answer = self.backend.answer(
            LocalEpoch(
                model=self.model.card.hash, loss="ce", params=self.params, data=self.data, picks={"private": picks},
                optimiser=self.optimiser, moments=self.moments,
            )
        )  # fmt: skip
        self.params, self.moments = answer.params, answer.moments

    def predict(self) -> None:
        """One sample, with the weights of the file."""
        from edgeswarm.backends.base import Predict

        self.backend.answer(Predict(self.model.card.hash, self.data["x"][:1]))


class Torch:
    """The same architecture in torch eager."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        import torch

        from edgeswarm.export.architectures import create

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.torch = torch
        self.module = create(name, 10, 0, shape, (0.0,), (1.0,))
        x, y = samples(shape)
        self.x, self.y = torch.tensor(x), torch.tensor(y)
        self.optimiser = torch.optim.SGD(self.module.parameters(), lr=1e-3, momentum=0.9)

    def train(self, steps: int) -> None:
        """So many steps."""
        for step in range(steps):
            low = step * BATCH % ROWS
            self.optimiser.zero_grad(set_to_none=True)
            logits = self.module(self.x[low : low + BATCH])[0]
            self.torch.nn.functional.cross_entropy(logits, self.y[low : low + BATCH]).backward()
            self.optimiser.step()

    def predict(self) -> None:
        """One sample."""
        with self.torch.inference_mode():
            self.module(self.x[:1])


def seconds(work: Callable[[], object]) -> float:
    """CPU time of this process for `work`."""
    start = time.process_time()
    work()
    return time.process_time() - start


def take_turns(ours: Callable[[int], None], theirs: Callable[[int], None], turn_s: float, limit_s: float) -> Any:
    """CPU seconds per call of both, in turns of about `turn_s` seconds, for `limit_s` seconds."""
    import numpy as np

    for work in (ours, theirs):
        work(2)
    count = max(1, int(turn_s / max(seconds(lambda: theirs(1)), 1e-6)))
    times: list[list[float]] = [[], []]
    end = time.monotonic() + limit_s
    while time.monotonic() < end or len(times[0]) < 5:
        for spent, work in zip(times, (ours, theirs), strict=True):
            spent.append(seconds(lambda: work(count)) / count)  # noqa: B023
    mine, other = np.array(times)
    low, high = np.percentile(other / mine, (10, 90))
    return {
        "ms": 1e3 * float(np.percentile(mine, 10)),
        "torch_ms": 1e3 * float(np.percentile(other, 10)),
        "ratio": float(np.percentile(other, 10) / np.percentile(mine, 10)),
        "ratio_p10": float(low),
        "ratio_p90": float(high),
        "turns": len(mine),
    }


def child_step(name: str, path: str, limit_s: str) -> Any:
    """Training steps of both."""
    ours = Ours(path)
    theirs = Torch(name, ours.model.card.input.shape)
    return take_turns(ours.train, theirs.train, 0.05, float(limit_s))


def child_inference(name: str, path: str, limit_s: str) -> Any:
    """Single samples through both."""
    ours = Ours(path)
    theirs = Torch(name, ours.model.card.input.shape)

    def often(once: Callable[[], None]) -> Callable[[int], None]:
        return lambda count: [once() for _ in range(count)] and None

    return take_turns(often(ours.predict), often(theirs.predict), 0.05, float(limit_s))


def peak_mib() -> float:
    """The most memory this process had resident so far."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def child_train(path: str, steps: str) -> Any:
    """Trains as an agent does. The first step's end is given as time.time(), the parent knows when it started us."""
    ours = Ours(path)
    ours.train(1)
    first = time.time()
    ours.train(int(steps))
    foreign = sorted({"torch", "onnx", "scipy", "matplotlib"} & set(sys.modules))
    return {"first_step": first, "peak_mib": peak_mib(), "foreign": foreign}


def child_train_torch(name: str, shape: str, steps: str) -> Any:
    """The same with torch."""
    theirs = Torch(name, tuple(json.loads(shape)))
    theirs.train(1)
    first = time.time()
    theirs.train(int(steps))
    return {"first_step": first, "peak_mib": peak_mib()}


def child_build(folder: str, names: str) -> Any:
    """Builds models and an int8 ResNet-8, those that are not there yet. Answers with shapes by name."""
    from edgeswarm.export.build import build
    from edgeswarm.models.file import read, write

    shapes = {}
    for name in names.split(","):
        path = Path(folder) / f"{name}.esm"
        if not path.exists():
            write(build(name, 10), path)
        model = read(path)
        shapes[name] = list(model.card.input.shape)
        if name == "resnet8" and not (Path(folder) / "resnet8_int8.esm").exists():
            from edgeswarm.export.quantise import quantise

            write(quantise(model, samples(model.card.input.shape)[0]), Path(folder) / "resnet8_int8.esm")
    return shapes


CHILDREN = {
    "build": child_build,
    "inference": child_inference,
    "step": child_step,
    "train": child_train,
    "train_torch": child_train_torch,
}


def child(what: str, *arguments: str) -> Any:
    """The answer of one of CHILDREN, run in a process of its own, with the time at which that was started."""
    started = time.time()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--child", what, *arguments], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise SystemExit(f"the process for {what} {' '.join(arguments)} ended with {done.returncode}")
    answer = json.loads(done.stdout.splitlines()[-1])
    if "first_step" in answer:
        answer["first_step_s"] = answer.pop("first_step") - started
    return answer


# ---- the whole ------------------------------------------------------------------------------------------------------


def measure(folder: Path, quick: bool) -> dict[str, Any]:
    """All figures, by group and model."""
    names = [name for name in MODELS if not (quick and name in SLOW_TO_BUILD)]
    shapes = child("build", str(folder), ",".join(names))
    files = {name: str(folder / f"{name}.esm") for name in (*names, "resnet8_int8")}
    figures: dict[str, Any] = {"step": {}, "memory": {}, "inference": {}}
    for name in names:
        limit_s = ("2" if name in ("mlp", "lenet5") else "4") if quick else "20"
        figures["step"][name] = child("step", name, files[name], limit_s)
        steps = "20" if name in ("mlp", "lenet5") else "8"
        runs = [child("train", files[name], steps) for _ in range(7)]
        torch = child("train_torch", name, json.dumps(shapes[name]), steps)
        figures["memory"][name] = {
            "peak_mib": max(run["peak_mib"] for run in runs),
            "torch_peak_mib": torch["peak_mib"],
            "first_step_s": min(run["first_step_s"] for run in runs),
            "torch_first_step_s": torch["first_step_s"],
            "foreign": runs[0]["foreign"],
        }
    for name, architecture in (("lenet5", "lenet5"), ("resnet8_int8", "resnet8")):
        if architecture not in names:
            continue
        figures["inference"][name] = child("inference", architecture, files[name], "1.5" if quick else "10")
    return figures


def shortfalls(figures: dict[str, Any]) -> list[str]:
    """One line for each figure that misses what is promised."""
    missed = []
    for name, got in figures["step"].items():
        if got["ratio"] < LEAST_RATIO[name]:
            missed.append(f"step ratio of {name} is {got['ratio']:.2f}, below {LEAST_RATIO[name]:g}")
    for name, got in figures["memory"].items():
        if got["peak_mib"] > MOST_PEAK_MIB.get(name, float("inf")):
            missed.append(f"peak memory of {name} is {got['peak_mib']:.0f} MiB, above {MOST_PEAK_MIB[name]:g}")
        if name in MOST_PEAK_MIB and got["first_step_s"] > MOST_FIRST_STEP_S:
            missed.append(f"first step of {name} took {got['first_step_s']:.2f} s, above {MOST_FIRST_STEP_S:g}")
        if got["foreign"]:
            missed.append(f"training {name} imported {', '.join(got['foreign'])}")
    for name, got in figures["inference"].items():
        if got["ratio"] < LEAST_INFERENCE_RATIO[name]:
            missed.append(f"inference ratio of {name} is {got['ratio']:.2f}, below {LEAST_INFERENCE_RATIO[name]:g}")
    return missed


def show(figures: dict[str, Any]) -> None:
    """As text, torch beside us."""
    print(f"one training step, batch {BATCH}, one thread: ms of CPU time, and how many times faster than torch eager")
    for name, got in figures["step"].items():
        spread = f"({got['ratio_p10']:.2f} to {got['ratio_p90']:.2f})"
        print(f"  {MODELS[name]:16} {got['ms']:9.3f}   torch {got['torch_ms']:9.3f}   {got['ratio']:5.2f} {spread}")
    print("a process that trains: peak resident memory in MiB, and seconds from its start to the end of the first step")
    for name, got in figures["memory"].items():
        ours = f"{got['peak_mib']:6.1f} MiB {got['first_step_s']:5.2f} s"
        print(f"  {MODELS[name]:16} {ours}   torch {got['torch_peak_mib']:6.1f} MiB {got['torch_first_step_s']:5.2f} s")
    print("one sample at a time: ms of CPU time")
    for name, got in figures["inference"].items():
        spread = f"({got['ratio_p10']:.2f} to {got['ratio_p90']:.2f})"
        print(f"  {name:16} {got['ms']:9.4f}   torch {got['torch_ms']:9.4f}   {got['ratio']:5.2f} {spread}")


def main() -> int:
    from report import end
    from report import parser as options_of

    parser = options_of(__doc__, "fewer repeats, MLP and LeNet-5 alone")
    parser.add_argument("--models", type=Path, help="folder of the built models; made there if they are not")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child[0]](*options.child[1:])))
        return 0

    with tempfile.TemporaryDirectory() as scratch:
        folder = options.models or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        figures = measure(folder, options.quick)
    return end(options, figures, shortfalls(figures), lambda: show(figures))


if __name__ == "__main__":
    sys.exit(main())
