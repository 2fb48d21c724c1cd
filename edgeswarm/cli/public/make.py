"""`edgeswarm public make`: well-spread samples out of a file or folder of samples."""

from __future__ import annotations

from pathlib import Path

import click

from edgeswarm import readable
from edgeswarm.cli import options, output


@click.command()
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    "out_file",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the public set goes; by custom its name ends in .npz.",
)
@click.option("--rows", type=click.IntRange(1, 65_536), default=500, show_default=True, help="How many samples.")
@click.option("--label", default="", metavar="NAME", help="Column or array with the class. csv: label; npz: y.")
@click.option("--labels", metavar="A,B,...", default="", help="The classes in their order, instead of those of DATA.")
@click.option("--random", "evenly", is_flag=True, help="Draw evenly from DATA instead of spreading over it.")
@click.option(
    "--set-version", "version", metavar="TEXT", default="1", show_default=True, help="For people; part of the hash."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of every draw.")
@click.option("--force", is_flag=True, help="Replace a FILE that holds something else.")
@options.as_json
@options.common
def command(
    data: Path, out_file: Path, rows: int, label: str, labels: str, evenly: bool, version: str, seed: int,
    force: bool, json_wanted: bool,
) -> None:  # fmt: skip
    """Choose samples of DATA that every board shall have, and write them without their labels.

    DATA is .npz with x and y, .csv with a header, or a folder <class>/*.png or *.jpg, in the units of the boards' own
    samples. Labels are only read to know the classes. Put the same FILE on every board.
    """
    import numpy as np

    from edgeswarm.agent.faults import fault_text
    from edgeswarm.errors import DataError
    from edgeswarm.models.public import PublicSet, spread, write
    from edgeswarm.sim.data import read

    found = read(data, label, seed=seed)
    classes = tuple(name.strip() for name in labels.split(",")) if labels else found.classes
    if evenly:
        places = np.sort(np.random.default_rng(seed).permutation(len(found.x))[:rows])
    else:
        places = spread(found.x, rows, seed)
    try:
        public = PublicSet(np.ascontiguousarray(found.x[places], np.float32), classes, version)
    except ValueError as error:
        raise DataError(f"{data}: {error}") from None
    if out_file.exists() and not force and _hash_of(out_file) != public.hash:
        raise DataError(
            f"{out_file}: something else is there, and boards that have it understand no other; "
            "choose another name, or replace it with --force"
        )
    try:
        write(public, out_file)
    except OSError as error:
        raise DataError(fault_text("write", out_file, error)) from None
    size = out_file.stat().st_size
    if json_wanted:
        output.emit(
            {"file": str(out_file), "rows": len(public.x), "features": public.x.shape[1], "classes": list(classes),
             "hash": public.hash, "size_bytes": size}
        )  # fmt: skip
        return
    output.pairs([
        ("public set", f"{len(public.x):,} of {len(found.x):,} samples of {public.x.shape[1]:,} numbers, "
                       f"{len(classes)} classes, no labels"),
        ("written", f"{out_file}, {readable.size(size)}, hash {public.hash[:12]}"),
    ])  # fmt: skip


def _hash_of(file: Path) -> str:
    """Of the public set in `file`; "" where it holds none."""
    from edgeswarm.errors import EdgeswarmError
    from edgeswarm.models.public import read

    try:
        return read(file).hash
    except EdgeswarmError:
        return ""
