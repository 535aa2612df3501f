"""How networks are trained: where, by which loop, and how sure the score is."""
