"""What leaves the pipeline: messages, and the outputs that carry them."""
