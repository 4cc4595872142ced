"""Float ONNX → int8 ONNX that gives the same masks.

The passes, in order: `observe` runs the float model once on the calibration pictures; `split` and `equalize` repair its
ranges, exactly in float; `ranges` decides what the 256 steps of each tensor cover; `reconstruct` chooses integers and
biases layer by layer against the float output; `emit` writes the graph; `kernels` and `agreement` check the result.
`pipeline` is the whole of it, `python -m quantize` its command line.
"""
