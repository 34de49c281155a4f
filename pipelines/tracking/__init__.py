"""Tracks the faces of a camera from frame to frame."""
