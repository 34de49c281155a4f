"""What web pages that a browser shows may have done here, and what browsers may do with the answers."""
