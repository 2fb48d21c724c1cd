"""What every benchmark of this folder has in common: its options, and how it ends."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any


def parser(about: str | None, quick: str) -> argparse.ArgumentParser:
    """--quick, --json, --check. about: the script's docstring.  quick: what is left out."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help=f"under a minute on two cores; {quick}")
    made.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    made.add_argument("--check", action="store_true", help="exit 1, naming the figure, when a promise is missed")
    return made


def end(options: argparse.Namespace, figures: dict[str, Any], missed: list[str], show: Callable[[], None]) -> int:
    """Print the figures; the exit code. missed: promises that were not kept.  show: prints them for people."""
    if options.json:
        print(json.dumps({**figures, "missed": missed}, indent=1))
    else:
        show()
    if options.check and missed:
        print("falls short: " + "; ".join(missed), file=sys.stderr)
        return 1
    return 0
