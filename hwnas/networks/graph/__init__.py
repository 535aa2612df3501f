"""A network as a graph of values: recorded while it runs, and searched for what can be replaced."""
