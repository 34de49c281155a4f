"""How a frame is shown, and its pixels."""
