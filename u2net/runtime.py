"""onnxruntime, for the whole project: `from u2net.runtime import onnxruntime`.

From 1.29 on it looks up a telemetry host on Linux and writes a device id and a database into the user's cache, as soon
as it is imported. `u2net/__init__.py`, which runs before this module, sets ORT_DISABLE_TELEMETRY=1 unless the user has
set it; `disable_telemetry_events()` after the import comes too late for the device id. Lint refuses other imports.
"""

from __future__ import annotations

import onnxruntime

__all__ = ["onnxruntime"]
