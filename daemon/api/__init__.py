"""The HTTP APIs: visaged's own, and those in the shape of two cloud services."""
