"""What is told to a service manager: that the daemon works, what it does, and whether every part of it goes on."""
