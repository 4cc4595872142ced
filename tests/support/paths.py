"""Where things lie: the repository, real photographs beside it, and what tests build once."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("U2NET_SHARED", ROOT.parent / "shared"))
BUILT = ROOT / "build" / "tests"
