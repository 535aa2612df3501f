"""From a reference to checkpoints: partition, space, distill, library, search, stitch, finetune."""
