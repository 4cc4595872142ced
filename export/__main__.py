"""`python -m export`: a checkpoint becomes ONNX that is proven against PyTorch."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
