"""Android phones over adb, driven by a small program on ONNX Runtime's C API."""
