"""What the node agent may do on a real API server: write about its own node, and nothing else (RBAC and policy)."""

from __future__ import annotations

import asyncio

import pytest
from fake_machines import hgx_h100

from cluster.api import path
from cluster.chart import NAMESPACE, install_chart, wait_until
from fairlead.clock import now_ms
from fairlead.discovery.findings import HealthRules
from fairlead.discovery.nvml import Library
from fairlead_operator.agent.observe import Observer
from fairlead_operator.agent.publish import Publisher
from fairlead_operator.agent.run_agent import Agent
from fairlead_operator.agent.ward import Ward
from fairlead_operator.kube_client import KubeClient
from fairlead_operator.kube_config import load_config

ACCOUNT, MINE, OTHER = "fairlead-agent", "agent-node-a", "agent-node-b"
SPEC = {"source": "nvml", "observedAtMs": 1}


@pytest.fixture(scope="module")
def token(control_plane):
    """The token of an agent's pod that runs on node MINE."""
    admin = control_plane.api
    install_chart(admin, control_plane.programs["helm"])
    for name in (MINE, OTHER):
        admin.create(path("nodes"), {"metadata": {"name": name}})
    pod = {
        "metadata": {"name": "agent-0"},
        "spec": {
            "serviceAccountName": ACCOUNT,
            "nodeName": MINE,
            "containers": [{"name": "agent", "image": "example"}],
            "tolerations": [{"operator": "Exists"}],
        },
    }
    admin.create(path("pods", NAMESPACE), pod)
    yield control_plane.service_account_token(NAMESPACE, ACCOUNT, bound_pod="agent-0")
    admin.delete(path("pods", NAMESPACE, "agent-0"), grace_seconds=0)
    for name in (MINE, OTHER):
        admin.delete(path("nodes", name=name))


@pytest.fixture(scope="module")
def agent(control_plane, token):
    client = control_plane.client(token)

    def enforced():
        body = {"metadata": {"name": OTHER}, "spec": SPEC}
        where = path("nodetopologies") + "?dryRun=All"
        return client.request("POST", where, kind(body))[0] in (403, 422)

    wait_until(enforced, "fairlead-agent-node is not enforced")
    return client


def kind(body):
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": "NodeTopology", **body}


def test_an_agent_writes_about_its_own_node_only(agent, control_plane):
    admin = control_plane.api
    status, answer = agent.request("POST", path("nodetopologies"), kind({"metadata": {"name": OTHER}, "spec": SPEC}))
    assert status == 403
    assert (
        f"the agent on node '{MINE}' may write the NodeTopology of that node only, not '{OTHER}'" in answer["message"]
    )
    admin.create(path("nodetopologies"), kind({"metadata": {"name": OTHER}, "spec": SPEC}))
    for sub in ("", "/status"):
        where = path("nodetopologies", name=OTHER) + sub
        body = {"spec": {"source": "lies"}, "status": {"heartbeatMs": 1}}
        assert agent.request("PATCH", where, body, content_type="application/merge-patch+json")[0] == 403
    assert agent.request("DELETE", path("nodetopologies", name=MINE))[0] == 403
    admin.delete(path("nodetopologies", name=OTHER))


def test_it_reads_no_more_than_it_needs(agent):
    for where in (
        path("pods"),
        path("secrets", NAMESPACE),
        path("nodes"),
        path("nodetopologies"),
        path("queues"),
        path("gangjobs"),
        path("resourceclaims"),
    ):
        assert agent.request("GET", where)[0] == 403, where
    assert agent.request("PATCH", path("nodes", name=MINE), {}, content_type="application/merge-patch+json")[0] == 403


def test_the_real_publisher_through_a_life(agent, token, control_plane, tmp_path):
    admin = control_plane.api
    fake = hgx_h100()
    config = load_config(str(control_plane.kubeconfig(tmp_path / "agent.kubeconfig", token, NAMESPACE)))
    where = path("nodetopologies", name=MINE)

    async def life():
        async with KubeClient(config) as client:
            ward = Ward(HealthRules(), boot_id="boot-1")
            publisher = Publisher(client, MINE, boot_id="boot-1")
            library = Library(fake)
            made = Agent(library, Observer(library, None), ward, now_ms, publisher=publisher)
            await made.round()
            assert publisher.failures == 0
            first = admin.get(where)
            fake.cut(0, (9, 0), (9, 4))
            fake.lose(3)
            await made.round()
            lost = admin.get(where)
            await made.round()
            again = admin.get(where)
            fake.reset(3)
            await made.round()
            return first, lost, again, admin.get(where), publisher.failures

    first, lost, again, back, failures = asyncio.run(life())
    assert failures == 0
    assert first["metadata"]["ownerReferences"][0]["name"] == MINE
    assert {c["type"]: c["status"] for c in first["status"]["conditions"]} == {"Joined": "False", "Mismatch": "False"}
    assert [g["verdict"] for g in first["spec"]["gpus"]] == ["healthy"] * 8
    assert lost["spec"]["gpus"][3]["healthReasons"] == ["GpuLost"]
    assert [i["start"] for i in lost["spec"]["gpus"][0]["mig"]["instances"]] == [0, 4]
    assert again["metadata"]["resourceVersion"] == lost["metadata"]["resourceVersion"]  # nothing changed
    assert back["spec"]["gpus"][3]["healthReasons"] == ["Probation"]
    assert [e["what"] for e in back["status"]["events"]] == ["GpuLost", "Probation"]
    admin.delete(where)
