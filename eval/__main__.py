"""Command line: `python -m eval MODELS…` judges models; `latency`, `gate`, `baseline` and `bench` are parts of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from u2net.errors import U2NetError

__all__ = ["main"]

COMMANDS = """commands:
  python -m eval MODELS…            quality, latency, report (this)
  python -m eval latency MODELS…    latency alone
  python -m eval gate REPORT        fail where a report does not keep a policy
  python -m eval baseline REPORT    make a report the baseline of the gate
  python -m eval bench              speed of the metrics, beside PySODMetrics'"""

Run = Callable[[argparse.Namespace], int]


def _command(name: str) -> tuple[Callable[[argparse.ArgumentParser], argparse.ArgumentParser], Run]:
    """The options and the work of one command; modules are loaded for it alone."""
    if name == "latency":
        from .latency.command import build_parser, run

        return build_parser, run
    if name == "gate":
        from .gate import add_gate_arguments, run_gate

        return add_gate_arguments, run_gate
    if name == "baseline":
        from .gate import add_baseline_arguments, run_baseline

        return add_baseline_arguments, run_baseline
    if name == "bench":
        from .bench import add_bench_arguments, run_bench

        return add_bench_arguments, run_bench
    from .evaluate import add_evaluate_arguments, run_evaluate

    return add_evaluate_arguments, run_evaluate


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; bad input is one line on standard error and exit status 1."""
    rest = list(sys.argv[1:] if argv is None else argv)
    name = rest.pop(0) if rest and rest[0] in ("latency", "gate", "baseline", "bench") else ""
    add_arguments, run = _command(name)
    parser = argparse.ArgumentParser(
        prog=f"python -m eval {name}".strip(),
        epilog=None if name else COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments = add_arguments(parser).parse_args(rest)
    try:
        return run(arguments)
    except U2NetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; what was measured is kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
