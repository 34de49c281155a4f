"""What comes over the network: connections, requests and bodies, read within bounds of time, number and memory."""
