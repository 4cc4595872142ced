"""Processor time of what this process started, thread by thread."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eval.latency.processor import ProcessorClock

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux tells")

WORKER = """
import sys, time
for line in sys.stdin:
    began = time.thread_time()
    while time.thread_time() - began < float(line):
        pass
    print("done", flush=True)
"""


def test_the_thread_that_works_is_timed_and_sleep_is_not() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def ask(seconds: float) -> float:
            clock = ProcessorClock()
            process.stdin.write(f"{seconds}\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            process.stdout.readline()  # type: ignore[union-attr]
            spent = clock.busiest_ms()
            assert spent is not None
            return spent

        ask(0.0)  # the interpreter has started
        assert ask(0.0) < 30
        assert 190 < ask(0.2) < 300
        process.stdin.close()
