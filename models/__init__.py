"""Networks: weights and their manifest, sessions, pre- and post-processing."""
