"""Looks at a camera as the daemon would, and says how good it is and what to change."""
