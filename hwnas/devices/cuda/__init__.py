"""NVIDIA GPUs, timed by CUDA events."""
