"""The closed form: a model that is fast enough to find the best schedule with."""
