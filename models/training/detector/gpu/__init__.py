"""Training the detector within minutes on a machine with a GPU."""
