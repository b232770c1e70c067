"""What several tests submit, and what a gang that runs must look like on the API server."""

from __future__ import annotations

from typing import Any

from cluster.world import ClusterWorld, allocated, claimed, member_of
from fairlead.model.gang import Gang
from fairlead.simulation.workload import Owner, Shape, draw

# As `bench scale` mixes them; what spans nodes must stay in one rack.
MIX = (
    Shape(percent=60, replicas=1, gpus=1),
    Shape(percent=15, replicas=1, gpus=8),
    Shape(percent=10, replicas=2, gpus=8, within="rack"),
    Shape(percent=10, replicas=4, gpus=8, within="rack"),
)


def submit_mix(
    world: ClusterWorld, queue: str, *, seed: int = 42, count: int = 40, prefix: str = "job"
) -> dict[str, Gang]:
    """Draw GangJobs from the mix and create them: name -> what was drawn."""
    owner = Owner(namespace=world.namespace, queue=queue)
    drawn = draw(seed, count=count, owners=[owner], start_ms=0, gap_ms=0, mix=MIX, prefix=prefix)
    gangs = {arrival.gang.name: arrival.gang for arrival in drawn}
    for name, gang in gangs.items():
        role, topology = gang.roles[0], gang.topology
        within = topology.within if topology else ""
        world.submit(name, replicas=role.replicas, gpus=role.gpus, within=within, queue=queue)
    return gangs


def held(world: ClusterWorld) -> dict[tuple[str, str], str]:
    """(device pool, device) of every allocated claim -> claim; each may be there once."""
    taken: dict[tuple[str, str], str] = {}
    for claim in world.claims():
        for device in claimed(claim):
            assert device not in taken, (device, claim["metadata"]["name"], taken[device])
            taken[device] = claim["metadata"]["name"]
    return taken


def check_gang(world: ClusterWorld, name: str, replicas: int, gpus: int) -> list[str]:
    """Every member's claim is exactly what status.allocation says, and its pod runs there; return its nodes."""
    job = world.gang(name)
    said = allocated(job)
    assert len(said) == replicas, job["status"]
    claims = {member_of(claim): claim for claim in world.claims(name)}
    pods = {member_of(pod): pod for pod in world.pods(name)}
    assert claims.keys() == pods.keys() == said.keys()
    for member, (node, devices) in said.items():
        assert len(devices) == gpus
        assert claimed(claims[member]) == tuple(sorted((node, device) for device in devices))
        users = claims[member]["status"]["reservedFor"]
        assert [user["uid"] for user in users] == [pods[member]["metadata"]["uid"]]
        assert pods[member]["spec"]["nodeName"] == node
        assert pods[member]["status"]["phase"] == "Running"
        assert set(devices) <= {gpu.device for gpu in world.nodes[node].gpus}
    return [node for node, _ in said.values()]


def check_mix(world: ClusterWorld, gangs: dict[str, Gang]) -> None:
    """All of a mix run, each as `check_gang` demands and in one rack where it asked for one."""
    for name, gang in gangs.items():
        nodes = check_gang(world, name, gang.roles[0].replicas, gang.roles[0].gpus)
        if gang.topology:
            assert len({world.rack_of[node] for node in nodes}) == 1, (name, nodes)
    assert len(held(world)) == sum(gang.gpus for gang in gangs.values())


def bound(world: ClusterWorld) -> int:
    """Count pods that are bound and not told to go."""
    return sum(bool(pod["spec"].get("nodeName")) and is_staying(pod) for pod in world.pods())


def half_there(world: ClusterWorld, gangs: dict[str, Gang]) -> list[str]:
    """Name gangs of which something is there that is neither wholly bound nor on its way out."""
    found: list[str] = []
    for name, gang in gangs.items():
        pods = [pod for pod in world.pods(name) if is_staying(pod)]
        nodes = [pod["spec"].get("nodeName") for pod in pods]
        holding = [claim for claim in world.claims(name) if claimed(claim) and is_staying(claim)]
        whole = len(pods) == len(holding) == gang.roles[0].replicas and all(nodes)
        if (pods or holding) and not whole:
            found.append(f"{name}: pods on {nodes}, {len(holding)} claims hold devices")
    return found


def is_staying(thing: Any) -> bool:
    """Whether nobody has asked for its deletion."""
    return not thing["metadata"].get("deletionTimestamp")
