"""Runs in a process of its own: `python -I onnx_worker`. Its modules import each other, not bnmodel."""
