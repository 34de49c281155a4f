"""Single pictures by a whole fleet: the HTTP APIs of the nodes behind Ray Serve."""
