"""Messages, and the outputs that send them."""
