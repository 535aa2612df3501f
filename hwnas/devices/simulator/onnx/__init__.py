"""From an ONNX graph to the layers of the models."""
