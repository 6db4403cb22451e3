"""A school system to talk to: a real HTTP server on a loopback port with data of its own and faults on demand."""
