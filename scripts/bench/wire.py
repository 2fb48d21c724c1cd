#!/usr/bin/env python3
"""What does it cost to put a model into bytes and to take it out again?

It informs how many models a board, and a simulation, can afford to exchange: `encode` and `decode` of `Weights` in each
scheme, for a small model (116 numbers, logistic regression) and one of 62,500 numbers (250 kB as float32); the latter
also cut into chunks for packets of 120 kB and put together again. Beside it, as the least there could be: one copy of
the same bytes in memory. Each figure is CPU time of one thread, the best of several repeats.
"""

from __future__ import annotations

import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parent)]

import numpy as np  # noqa: E402
import report  # noqa: E402

from edgeswarm.maths.compress import compress  # noqa: E402
from edgeswarm.messages import VECTOR_SCHEMES, Weights  # noqa: E402
from edgeswarm.wire.chunks import Assembly, cut, read  # noqa: E402
from edgeswarm.wire.codec import decode, encode  # noqa: E402
from edgeswarm.wire.topics import PACKET_LIMIT_BYTES  # noqa: E402

SMALL, LARGE = 116, 62_500
SMALL_LIMIT_US = 30.0
COPIES_LIMIT = 10.0
"""Encoding copies the numbers three times and looks for what is not finite; far above is not memory's doing."""


def best_us(act: Callable[[], Any], repeats: int, number: int) -> float:
    """Microseconds of CPU time of one call, the best of several repeats."""
    return min(timeit.repeat(act, timer=time.process_time, number=number, repeat=repeats)) / number * 1e6


def joined(payloads: list[bytes]) -> Any:
    """The chunks of one message as a receiver takes them."""
    assembly = Assembly()
    return [assembly.add("a", "t", read(payload)) for payload in payloads][-1]


def measure(repeats: int) -> dict[str, Any]:
    """Microseconds by size and scheme, and what a copy and chunks of the largest take."""
    rng = np.random.default_rng(0)
    rows = []
    for size in (SMALL, LARGE):
        vector = rng.normal(size=size).astype(np.float32)
        for scheme in VECTOR_SCHEMES:
            message = Weights(2**63, 2**62, "all", 3, 1200, compress(vector, scheme), samples=45_312)
            data = encode(message)
            number = 2000 if size == SMALL else 200
            rows.append(
                {
                    "numbers": size,
                    "scheme": scheme,
                    "bytes": len(data),
                    "encode_us": round(best_us(lambda m=message: encode(m), repeats, number), 2),  # type: ignore[misc]
                    "decode_us": round(best_us(lambda d=data: decode(d), repeats, number), 2),  # type: ignore[misc]
                }
            )
    whole = encode(Weights(1, 2, "all", 3, 1200, compress(vector, "float32")))
    pieces = cut(whole, 3, 1, PACKET_LIMIT_BYTES)
    source = bytearray(whole)
    return {
        "messages": rows,
        "copy_us": round(best_us(lambda: bytes(source), repeats, 200), 2),
        "cut_us": round(best_us(lambda: cut(whole, 3, 1, PACKET_LIMIT_BYTES), repeats, 50), 1),
        "join_us": round(best_us(lambda: joined(pieces), repeats, 50), 1),
    }


def main() -> int:
    """Measure, print, check; returns the exit status."""
    options = report.parser(__doc__, "fewer repeats").parse_args()
    figures = measure(5 if options.quick else 25)
    missed = []
    for row in figures["messages"]:
        for way in ("encode", "decode"):
            took_us = row[f"{way}_us"]
            if row["numbers"] == SMALL and took_us > SMALL_LIMIT_US:
                missed.append(f"{way} of {SMALL} numbers as {row['scheme']}: {took_us} us, {SMALL_LIMIT_US:g} promised")
            if (row["numbers"], row["scheme"]) == (LARGE, "float32") and took_us > COPIES_LIMIT * figures["copy_us"]:
                missed.append(f"{way} of {row['bytes']} bytes: {took_us} us, a copy takes {figures['copy_us']} us")

    def show() -> None:
        print(f"{'numbers':>8} {'scheme':>8} {'bytes':>8} {'encode us':>10} {'decode us':>10} {'MB/s':>7} {'MB/s':>7}")
        for row in figures["messages"]:
            speeds = [row["bytes"] / row[f"{way}_us"] for way in ("encode", "decode")]
            print(
                f"{row['numbers']:8} {row['scheme']:>8} {row['bytes']:8} {row['encode_us']:10.1f}"
                f" {row['decode_us']:10.1f} {speeds[0]:7.0f} {speeds[1]:7.0f}"
            )
        print(f"one copy of {4 * LARGE} bytes: {figures['copy_us']} us")
        print(f"into chunks: {figures['cut_us']} us, together again: {figures['join_us']} us")

    return report.end(options, figures, missed, show)


if __name__ == "__main__":
    raise SystemExit(main())
