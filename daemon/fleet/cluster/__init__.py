"""The fleet on a Ray cluster: its actors, and the clients that talk to them. Nothing else imports Ray."""
