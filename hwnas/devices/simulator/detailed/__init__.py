"""The detailed model: what a given schedule costs, with the loop order of every layer tile searched."""
