"""The scripts are no package: what they import beside themselves is found through the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "replicate"))
