"""One machine of a fleet: a daemon whose cameras come and go by leases."""
