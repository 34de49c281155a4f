"""Composing the detector's training samples."""
