"""In a process that has this folder in its PYTHONPATH the clock of the wall is off by what the file WALL_CLOCK says."""

import os
import time
from pathlib import Path

_right, _file = time.time, Path(os.environ["WALL_CLOCK"])


def _wrong() -> float:
    return _right() + float(_file.read_text())


time.time = _wrong
