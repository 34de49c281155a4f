"""When frames were captured, and when they are due."""
