"""Phones and boards in Qualcomm AI Hub."""
