"""`edgeswarm` and `python -m edgeswarm`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it quietly, even while it is still being imported."""
    try:
        from edgeswarm.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
