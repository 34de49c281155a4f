"""The HTTP APIs: visaged's own, and those that are compatible with two cloud services."""
