"""The control plane of a test session, and the mark on every test of this folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from .api_objects import TEAM_A, TEAM_B
from .chart import apply, install_chart
from .controlplane import build
from .server import ControlPlane

HERE = Path(__file__).parent
WITHOUT = (
    "no control plane: {absent} neither built nor in KUBEBUILDER_ASSETS, and {why}. Install Go and run "
    "`make controlplane` (about ten minutes, once), or set FAIRLEAD_CONTROLPLANE_CACHE"
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark every test of this folder `cluster`, and keep them on one worker: they share a server and mostly wait."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.xdist_group("cluster"))


@pytest.fixture(scope="session")
def control_plane():
    """A running control plane that the whole session shares; tests keep apart by namespaces and names of their own.

    Skips where the programs are missing; with CI=true it builds them, and fails where that is not possible.
    """
    _demand_programs()
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def new_control_plane():
    """Start further control planes, for tests that need an empty one, other controllers or other flags."""
    _demand_programs()
    running = []

    def start(**settings):
        plane = ControlPlane(**settings)
        running.append(plane)
        plane.start()
        return plane

    yield start
    for plane in running:
        plane.stop()


@pytest.fixture(scope="module")
def helm(control_plane):
    """The helm that was built beside the control plane, whose absence skips the test."""
    return build.locate()["helm"]


@pytest.fixture(scope="module")
def api(control_plane, helm):
    """An administrator on a server with the whole chart, the uninstall hook's objects included."""
    admin = control_plane.api
    install_chart(admin, helm, workloads=True, hooks=True)
    for name in (TEAM_A, TEAM_B):
        apply(admin, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return admin


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show the servers' last words beside a failure."""
    report = yield
    plane = getattr(item, "funcargs", {}).get("control_plane")
    if report.failed and plane is not None:
        report.sections.append(("control plane", plane.tails()))
    return report


def _demand_programs():
    absent = build.missing()
    if not absent:
        return
    if os.environ.get("CI", "").lower() in ("true", "1"):
        build.build()  # BuildFailed fails the test, in words
        return
    why = "they are not built inside a test run" if shutil.which("go") else "there is no Go"
    pytest.skip(WITHOUT.format(absent=", ".join(absent), why=why))
