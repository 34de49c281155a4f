"""Measures how many cameras and pictures this machine carries: the parts of the daemon on clips made for it."""
