"""The places where bytes come in."""
