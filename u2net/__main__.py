"""`python -m u2net`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
