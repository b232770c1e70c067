"""Who is next: entitlements and the order of the queues."""
