"""How good an architecture is before it is finetuned, and finetuned networks."""
