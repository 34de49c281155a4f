"""The embedded MQTT broker: packets, topics, what waits for subscribers, connections, and a probe of the whole."""
