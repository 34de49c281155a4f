"""Looks at a running daemon from outside, over its broker or its HTTP server, for people at a terminal."""
