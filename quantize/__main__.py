"""`python -m quantize`: float ONNX becomes int8 ONNX that gives the same masks."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
