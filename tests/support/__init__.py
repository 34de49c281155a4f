"""Real parts for tests: a test camera, an MQTT broker, small media files."""
