"""Checkpoints: picked networks, finetuned, measured, confirmed, written."""
