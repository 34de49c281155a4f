"""Sessions: what a browser has instead of an API key after its user has logged in with one."""
