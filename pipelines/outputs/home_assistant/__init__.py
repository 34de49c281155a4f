"""Discovery by Home Assistant's MQTT integration."""
