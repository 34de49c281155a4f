"""What people and pages do in a browser."""
