"""The log of the process: where its lines go, without ever holding up whoever logs."""
