"""Making and correcting the labels of picture packs."""
