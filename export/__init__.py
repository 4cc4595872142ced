"""PyTorch → ONNX: export, simplify, rewrite for the browser, prove parity (`python -m export`)."""
