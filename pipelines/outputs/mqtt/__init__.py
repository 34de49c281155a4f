"""The output that publishes to an MQTT broker."""
