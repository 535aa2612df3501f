"""How latency samples are obtained: one room per way of reaching hardware."""
