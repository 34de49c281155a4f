"""Many machines as one: cameras placed over the nodes of a Ray cluster, each held by one of them at a time."""
