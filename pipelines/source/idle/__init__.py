"""A camera in front of which nothing happens: key frames alone are decoded, and what lies between them is kept."""
