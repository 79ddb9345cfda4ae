"""The inspection of ONNX files, run in a separate process: `python -I onnx_worker`. It imports nothing of bnmodel."""
