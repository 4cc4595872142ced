"""The network, its checkpoints and the way back from ONNX: the only place below the stages that imports torch."""
