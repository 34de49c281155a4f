"""The `visaged` command and what it prints on a terminal."""
