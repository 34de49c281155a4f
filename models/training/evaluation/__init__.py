"""Measuring networks, alone and through the running daemon, and the tables of the model cards."""
