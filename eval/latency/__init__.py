"""Latency of models where they will run: onnxruntime-web in a real headless Chromium, and beside it Node and native.

Notable choices:

- **real pictures**: the time of an int8 model depends on its data, and zeros lie by a tenth;
- **interleaved rounds**: every round runs every model once, in alternating order, on the same picture, so that a slow
  minute of the machine hits all alike; a ratio is the median over rounds of one model's time to the baseline model's
  *in the same round*, with the distribution-free confidence interval of that median (order statistics);
- **rounds until it is settled**: from `rounds` on, measuring stops once every ratio's interval is narrower than
  ±`precision`, and at `max_rounds` in any case; the interval is part of the result;
- **what really ran**: threads, workers, cross-origin isolation and the execution provider are read back from the engine
  and compared with what was asked for; a silent fallback is an error, not a slow measurement;
- **what was computed**: each engine gives back its masks, which are compared with native onnxruntime's.
"""

from .measure import faults, measure_latency
from .pictures import Picture, load_pictures
from .settings import LatencySettings

__all__ = ["LatencySettings", "Picture", "faults", "load_pictures", "measure_latency"]
