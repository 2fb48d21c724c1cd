"""`edgeswarm` and `python -m edgeswarm`."""

from __future__ import annotations

from edgeswarm.cli import main

if __name__ == "__main__":
    main()
