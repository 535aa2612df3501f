"""This machine's CPU, driven by ONNX Runtime."""
