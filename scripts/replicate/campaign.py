"""What the scripts that train many small swarms have in common: their options, and runs side by side."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from image_sets import FOLDER

Job = tuple[Any, ...]
"""Arguments of one run, the seed last."""


def options(parser: argparse.ArgumentParser, full: str, chosen: str) -> argparse.Namespace:
    """What was asked for, by the options of `parser` and --full, --arms, --seeds, --first-seed, --jobs, --data. chosen:
    what was chosen on which seeds."""
    parser.add_argument("--full", action="store_true", help=full)
    parser.add_argument("--arms", default="", help="only those in whose name this regular expression is found")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help=chosen)
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder with mnist.npz (and cifar10_jpeg.npz)")
    return parser.parse_args()


def arms(asked: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Those of `names` that were asked for."""
    return [name for name in names if re.search(asked.arms, name)]


def seeds(asked: argparse.Namespace) -> range:
    """Those that were asked for; the first alone with --quick."""
    return range(asked.first_seed, asked.first_seed + (1 if asked.quick else asked.seeds))


def played(
    run: Callable[..., dict[str, Any]], jobs: Sequence[Job], workers: int, figure: Callable[[dict[str, Any]], str]
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Each job, in order, with what `run(*job)` found (its "seconds" too), which is said on the way as `figure`."""
    from joblib import Parallel, delayed

    if not jobs:
        raise SystemExit("--arms: no arm of this run is called so")
    results = Parallel(workers, return_as="generator")(delayed(run)(*job) for job in jobs)
    for done, (job, found) in enumerate(zip(jobs, results, strict=True), 1):
        what = ", ".join([*map(str, job[:-1]), f"seed {job[-1]}"])
        text = f"{done}/{len(jobs)} {what}: {figure(found)} in {found['seconds']:.0f} s"
        print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)
        yield job, found
