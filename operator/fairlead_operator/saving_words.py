"""The annotations by which a gang's program and the operator talk about checkpoints."""

NOTICE = "fairlead.dev/checkpoint-request"
"""On a pod, by the operator: from when on it is to save, UTC ms."""
MARKER = "fairlead.dev/checkpoint"
"""On the pod of rank 0 or on the GangJob, by its program: what it has saved, as JSON."""
HEARTBEAT = "fairlead.dev/heartbeat"
"""On a pod or on the GangJob, by its program: any text that changes as long as it goes on."""
