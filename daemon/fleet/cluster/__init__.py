"""The fleet on a Ray cluster: its actors, and the clients that talk to them. Only this and `pictures` import Ray."""
