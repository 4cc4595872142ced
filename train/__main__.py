"""`python -m train`: teach a smaller network what a larger one knows."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
