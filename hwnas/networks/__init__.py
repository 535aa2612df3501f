"""A network: how it is found, built, cut and stored. Knows no library, device or search."""
