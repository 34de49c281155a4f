"""Building blocks of the configuration: the file, secrets, TLS, errors by key path."""
