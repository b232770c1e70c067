"""The node agent: reads GPUs and the PCI tree of its node, judges their health, publishes one NodeTopology.

Only `publish` talks to an API server, and only `observe` asks the driver, in a thread of its own with a deadline.
"""
