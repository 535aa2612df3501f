"""What may stand in the place of a part: families of blocks and variants of the reference's own."""
