"""What was measured before: read, drawn over time, exported and imported."""
