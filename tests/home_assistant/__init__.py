"""visaged in the real Home Assistant: `python -m tests.home_assistant`.

Home Assistant's MQTT integration, in a process of its own, connects to a real mosquitto, and so does a real daemon.
Home Assistant needs Python 3.12 or later and pins the versions of most of its hundred packages, so it gets a virtual
environment of its own, and is no part of `make test`.
"""
