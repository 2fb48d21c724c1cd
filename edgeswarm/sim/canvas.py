"""What every picture begins and ends with: an empty figure, colours, a quiet frame, a file.

Colours are those of Okabe and Ito (2008), which people with any of the common colour deficiencies tell apart.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeswarm.errors import EdgeswarmError
from edgeswarm.whole_file import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
DOTS_PER_INCH = 100


class NoPicture(EdgeswarmError):
    """A picture cannot be drawn here; whoever wanted it says so and ends well all the same."""


def canvas(size_inches: tuple[float, float]) -> Figure:
    """An empty figure of its own, not pyplot's: nothing global is left behind, and no window system is looked for.

    Raises NoPicture when matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise NoPicture("no picture: it needs matplotlib (pip install matplotlib)") from None
    figure = Figure(figsize=size_inches, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def saved(figure: Figure, path: Path) -> Path:
    """The figure at `path`, whose folders are made: an SVG where its name ends so, else a PNG. Whole or not at all.

    Raises NoPicture when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as fresh, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class name in a script the font lacks is drawn as boxes
            figure.savefig(fresh, format="svg" if path.suffix.lower() == ".svg" else "png")
    except OSError as error:
        raise NoPicture(f"no picture: {path}: {error.strerror or error}") from None
    return path


def literal(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def time_unit(end_s: float) -> tuple[float, str]:
    """Seconds in the unit of a time axis that ends there, and the unit's name."""
    return (1.0, "seconds") if end_s <= 900 else (60.0, "minutes") if end_s <= 21_600 else (3600.0, "hours")


def tidy(axes: Any) -> None:
    """A light grid, and no frame above and to the right."""
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
