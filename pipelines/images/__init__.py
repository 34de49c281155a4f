"""Single pictures: decoding them, and handing them to the inference workers."""
