"""`edgeswarm public show`: what a public set holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeswarm import readable
from edgeswarm.cli import options, output

if TYPE_CHECKING:
    from edgeswarm.messages import Predictions
    from edgeswarm.models.public import PublicSet


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@options.as_json
@options.common
def command(file: Path, json_wanted: bool) -> None:
    """What FILE holds, and how large a message about all of it is. Ends with 2 when FILE is refused."""
    from edgeswarm.models.public import read
    from edgeswarm.wire.codec import size_bytes

    public = read(file)
    sizes = {encoding: size_bytes(_whole(public, encoding)) for encoding in ("top2", "uint8", "float32")}
    if json_wanted:
        output.emit(
            {"file": str(file), "rows": len(public.x), "features": public.x.shape[1], "classes": list(public.classes),
             "version": public.version, "hash": public.hash, "message_bytes": sizes}
        )  # fmt: skip
        return
    shown = ", ".join(f"{readable.size(size)} as {encoding}" for encoding, size in sizes.items())
    output.pairs([
        ("public set", f"{len(public.x):,} samples of {public.x.shape[1]:,} numbers, version {public.version}"),
        ("classes", ", ".join(public.classes)),
        ("hash", public.hash),
        ("one head of all", shown),
    ])  # fmt: skip


def _whole(public: PublicSet, encoding: str) -> Predictions:
    """A message about every row, by a node that has an opinion on how near each lies."""
    import numpy as np

    from edgeswarm.maths.teachers import NO_EMBEDDING, encode
    from edgeswarm.messages import Predictions

    n, classes = len(public.x), len(public.classes)
    p = np.full((n, 1, classes), 1 / classes, np.float32)
    shares, tops = encode(p, encoding)
    trust = np.full(n, 128, np.uint8)
    rows = np.arange(n, dtype=np.uint32)
    return Predictions(1, public.number, 1, 1, classes, rows, encoding, shares, tops, trust, NO_EMBEDDING)
