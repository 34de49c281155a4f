"""What all parts of the configuration are made of: the file, secrets, TLS, errors by key path."""
