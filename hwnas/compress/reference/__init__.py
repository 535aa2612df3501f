"""The network that is compressed: prepared, recorded, confirmed."""
