"""Read by every Python that `aarch64` starts below the emulator, as its `sitecustomize`.

Programs that tests start are named by `sys.executable`; this machine cannot run that by itself, but the wrapper can.
"""

import os
import sys

sys.executable = os.environ.get("EDGESWARM_PYTHON", sys.executable)
