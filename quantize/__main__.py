"""`python -m quantize`."""

import os
import sys

# Layers are small: a second BLAS thread gains little, loses much where cores are shared, and would let the last bits of
# the sums, and so the bytes of the model, depend on the machine's number of cores.
for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from quantize.cli import main  # noqa: E402 the variables must be set before numpy is loaded

if __name__ == "__main__":
    sys.exit(main())
