"""The running process: one engine, one loop, ports to the outside."""
