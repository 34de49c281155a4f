"""Crops of faces, and the labels that networks and people gave them."""
