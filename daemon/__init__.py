"""The process: command line, settings, composition, HTTP API, health."""
