"""Events kept on disk until the receiver of an output has acknowledged them."""
