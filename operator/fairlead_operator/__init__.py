"""Fairlead's Kubernetes side: watches, reconciliation, and the cluster port over the API server."""
