"""Training and exporting the detector."""
