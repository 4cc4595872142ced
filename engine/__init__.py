"""The engine stage: an int8 U²-Net becomes one flat file that a small WebAssembly program runs. See docs/engine.md."""
