"""The block library: candidates of each part, distilled once for all devices."""
