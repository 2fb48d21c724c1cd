#!/usr/bin/env python3
"""Does a board that trains for a day need more memory in the end than at the start?

It informs whether an agent may train for months: 100,000 steps of the `onnx` backend on the MLP 784-200-10, batch 32,
which is a step a second for 28 hours, in a process that imports edgeswarm and onnxruntime alone. Every ten epochs of a
hundred steps it also predicts a batch with the weights it has, as an agent does between epochs.

Resident memory (VmRSS) is sampled a hundred times; the first tenth, in which caches fill, is left out. The rest is cut
into ten stretches, whose means a line is fitted to: neighbouring samples are not independent, means of long stretches
nearly are. Slope and its 95 % interval (Student, 8 degrees of freedom) are given in bytes per step. It counts as zero
when the interval contains zero, or when the whole run at that slope comes to less than NOISE_KIB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # read once, when NumPy is imported

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parent)]

STEPS, QUICK_STEPS, SAMPLES = 100_000, 30_000, 100
NOISE_KIB = 64.0
"""Sixteen pages: what an allocator moves about without anything having been lost."""
STRETCHES, STUDENT_95 = 10, 2.306


def resident_kib() -> int:
    """Resident memory of this process now."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def child(path: str, steps: int) -> dict[str, Any]:
    """Trains in epochs of up to a hundred steps. Answers with the samples and the time it took."""
    from train_step import Ours

    ours = Ours(path)
    epochs = max(SAMPLES, steps // 100)
    per_epoch, every = steps // epochs, epochs // SAMPLES
    kib, start = [], time.monotonic()
    for epoch in range(epochs):
        ours.train(per_epoch)
        if epoch % 10 == 0:
            ours.predict()
        if (epoch + 1) % every == 0:
            kib.append(resident_kib())
    return {"kib": kib, "seconds": time.monotonic() - start, "steps": epochs * per_epoch}


def slope(kib: list[float], steps: int) -> dict[str, float]:
    """Growth in bytes per step with its 95 % interval, from equally spaced samples over `steps` steps."""
    import numpy as np

    # The second half: an allocator takes its last block of a vector's size once, at some time in the first.
    settled = np.array(kib[len(kib) // 2 :], float) * 1024
    means = np.array([part.mean() for part in np.array_split(settled, STRETCHES)])
    x = (np.arange(STRETCHES) + 0.5) / STRETCHES * steps * len(settled) / len(kib)
    spread = ((x - x.mean()) ** 2).sum()
    rise = float(((x - x.mean()) * means).sum() / spread)
    rest = means - means.mean() - rise * (x - x.mean())
    half = STUDENT_95 * float(np.sqrt((rest**2).sum() / (STRETCHES - 2) / spread))
    return {"bytes_per_step": rise, "low": rise - half, "high": rise + half, "run_kib": rise * steps / 1024}


def main() -> int:
    from report import end
    from report import parser as options_of

    parser = options_of(__doc__, f"{QUICK_STEPS:,} steps")
    parser.add_argument("--models", type=Path, help="folder of built models, as train_step.py has it")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child[0], int(options.child[1]))))
        return 0

    from train_step import child as other

    with tempfile.TemporaryDirectory() as scratch:
        folder = options.models or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        other("build", str(folder), "mlp")
        steps = QUICK_STEPS if options.quick else STEPS
        done = subprocess.run(
            [sys.executable, str(HERE), "--child", str(folder / "mlp.esm"), str(steps)],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    run = json.loads(done.stdout.splitlines()[-1])
    figures = {**slope(run["kib"], run["steps"]), "steps": run["steps"], "seconds": run["seconds"]}
    figures |= {
        "first_mib": run["kib"][0] / 1024,
        "last_mib": run["kib"][-1] / 1024,
        "most_mib": max(run["kib"]) / 1024,
    }
    missed = []
    if figures["low"] > 0 and figures["run_kib"] > NOISE_KIB:
        missed.append(
            f"memory grows by {figures['bytes_per_step']:.2f} bytes per step, {figures['run_kib']:.0f} KiB in all"
        )

    def show() -> None:
        held = ", ".join(f"{name} {figures[f'{name}_mib']:.2f}" for name in ("first", "last", "most"))
        print(f"{figures['steps']:,} steps in {figures['seconds']:.0f} s; resident memory in MiB: {held}")
        interval = f"95 % interval {figures['low']:.3f} to {figures['high']:.3f}"
        print(f"slope {figures['bytes_per_step']:.3f} bytes per step, {interval}; {figures['run_kib']:.1f} KiB in all")

    return end(options, {**figures, "kib": run["kib"]}, missed, show)


if __name__ == "__main__":
    sys.exit(main())
