"""Loading the settings, and changing them while the daemon runs: reloads, and changes of cameras over HTTP."""
