"""What leaves the pipeline: results, events and status as messages, and the outputs that take them."""
