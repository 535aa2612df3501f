"""One of each thing that can be added to hwnas: a device, a strategy, a quality model, a task."""
