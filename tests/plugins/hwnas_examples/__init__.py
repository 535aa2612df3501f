"""One of each thing that can be added to hwnas: a device, a family of blocks, a block
trainer, a strategy, a quality model, a task."""
