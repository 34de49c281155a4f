"""Taking what the daemon needs to a machine without a package registry."""
