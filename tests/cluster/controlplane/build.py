#!/usr/bin/env python3
"""Build the programs of a real control plane once, into a cache outside the checkout.

Six static Go programs come from the four small modules beside this file, each pinned by its `go.mod` and `go.sum`:
kube-apiserver, kube-controller-manager and kubectl (kubernetes/), etcd, kwok and helm. There are four modules because
Kubernetes, etcd, KWOK and Helm each want another set of dependencies.

    python tests/cluster/controlplane/build.py            build what is missing; last line of stdout: the folder
    python tests/cluster/controlplane/build.py --check    exit 0 when nothing is missing, 1 when something is

The folder is `$FAIRLEAD_CONTROLPLANE_CACHE/<key>`, or `$XDG_CACHE_HOME/fairlead/controlplane/<key>` (`~/.cache` where
unset). The key holds the versions, the platform and a digest of the four modules, so a change of any pin builds anew
and an old checkout still finds its own programs. `KUBEBUILDER_ASSETS` goes first: what lies there is not built.

Needs the standard library and Go only. Exit codes: 0 done, 1 something is missing (--check), 2 the build failed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD_SECONDS_MAX = 3600
LOCK_SECONDS_MAX = 5400
# Part of the cache key: raise it when the flags below change what is built.
RECIPE = "1"


class BuildFailed(Exception):
    """A program could not be built; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program: its file name, the Go module folder that pins it and the package that is its `main`."""

    name: str
    module: str
    package: str


PROGRAMS = (
    Program("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    Program("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    Program("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    Program("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    Program("helm", "helm", "helm.sh/helm/v3/cmd/helm"),
)
PINS = {
    "kubernetes": "k8s.io/kubernetes",
    "etcd": "go.etcd.io/etcd/server/v3",
    "kwok": "sigs.k8s.io/kwok",
    "helm": "helm.sh/helm/v3",
}


def version(module: str) -> str:
    """Read the version of the pinned project, such as `v1.36.3`, from the `go.mod` of one of our modules."""
    text = (HERE / module / "go.mod").read_text()
    found = re.search(rf"^(?:require )?\s*{re.escape(PINS[module])} (v\S+)$", text, re.MULTILINE)
    if found is None:
        raise BuildFailed(f"{module}/go.mod does not require {PINS[module]}")
    return found.group(1)


def cache_key() -> str:
    """Name the folder of these versions on this platform."""
    digest = hashlib.sha256(RECIPE.encode())
    for module in sorted(PINS):
        for name in ("go.mod", "go.sum"):
            digest.update((HERE / module / name).read_bytes())
    versions = "-".join(f"{module}-{version(module)}" for module in PINS)
    system, machine = platform.system().lower(), platform.machine().lower()
    return f"{versions}-{system}-{machine}-{digest.hexdigest()[:8]}"


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Name the folder that holds the built programs; it may not exist yet."""
    chosen = environ.get("FAIRLEAD_CONTROLPLANE_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute() / cache_key()
    home = environ.get("XDG_CACHE_HOME")
    root = Path(home) if home else Path.home() / ".cache"
    return root / "fairlead" / "controlplane" / cache_key()


def locate(environ: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Find the programs that are there: name to path, `KUBEBUILDER_ASSETS` first, then the cache."""
    places = [cache_folder(environ)]
    if assets := environ.get("KUBEBUILDER_ASSETS"):
        places.insert(0, Path(assets).absolute())
    found: dict[str, Path] = {}
    for program in PROGRAMS:
        for place in places:
            path = place / program.name
            if path.is_file() and os.access(path, os.X_OK):
                found[program.name] = path
                break
    return found


def missing(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Name the programs that `locate` does not find, in the order in which they are built."""
    found = locate(environ)
    return [program.name for program in PROGRAMS if program.name not in found]


def build(environ: Mapping[str, str] = os.environ) -> Path:
    """Build what is missing and return the folder. Twice at once is safe: the second waits, then finds all done.

    Raises
    ------
    BuildFailed
        Go is missing or too old, a build failed, or another build kept the lock for too long.
    """
    folder = cache_folder(environ)
    if not missing(environ):
        return folder
    go = _go(environ)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(folder.name + ".lock")):
        for name in missing(environ):
            _build_one(go, next(program for program in PROGRAMS if program.name == name), folder, environ)
    return folder


def _go(environ: Mapping[str, str]) -> str:
    """Find a Go that is new enough for every module, or say how to get one."""
    needed = max(_go_line(module) for module in PINS)
    mend = (
        f"install Go {'.'.join(map(str, needed))} or newer (https://go.dev/dl), "
        "or point FAIRLEAD_CONTROLPLANE_CACHE at a cache that was built elsewhere"
    )
    go = shutil.which("go", path=environ.get("PATH"))
    if go is None:
        raise BuildFailed(f"no `go` on PATH: {mend}")
    # In one of our modules Go answers with the toolchain it will really use, after fetching a newer one if it may.
    asked = subprocess.run(
        [go, "env", "GOVERSION"], cwd=HERE / "kubernetes", env=_go_environ(environ), capture_output=True, text=True
    )
    release = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", asked.stdout.strip())
    if asked.returncode or release is None:
        raise BuildFailed(f"{go} does not work ({asked.stderr.strip() or asked.stdout.strip()}): {mend}")
    if tuple(int(part or 0) for part in release.groups()) < needed:
        raise BuildFailed(f"{go} is {asked.stdout.strip()}, too old: {mend}")
    return go


def _go_line(module: str) -> tuple[int, ...]:
    found = re.search(r"^go ([\d.]+)$", (HERE / module / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise BuildFailed(f"{module}/go.mod has no go line")
    return tuple(int(part) for part in found.group(1).split("."))


def _go_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Take the caller's proxy and cache settings, but no workspace and no C: the programs are static."""
    return {**environ, "CGO_ENABLED": "0", "GOWORK": "off"}


def _build_one(go: str, program: Program, folder: Path, environ: Mapping[str, str]) -> None:
    started = time.monotonic()
    print(f"building {program.name} {version(program.module)} ...", flush=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as half:
        target = Path(half) / program.name
        command = [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false"]
        command += ["-ldflags", _linker_flags(program), "-o", str(target), program.package]
        try:
            done = subprocess.run(
                command,
                cwd=HERE / program.module,
                env=_go_environ(environ),
                stdout=sys.stderr,
                timeout=BUILD_SECONDS_MAX,
            )
        except subprocess.TimeoutExpired as error:
            raise BuildFailed(f"{program.name}: go build took more than {BUILD_SECONDS_MAX} s") from error
        if done.returncode:
            raise BuildFailed(f"{program.name}: go build ended with {done.returncode}; its words are above")
        target.replace(folder / program.name)  # whoever looks sees the whole program or none
    print(f"built {program.name} in {time.monotonic() - started:.0f} s", flush=True)


def _linker_flags(program: Program) -> str:
    """Strip debug tables, and tell the program its version, which a build outside its own repository does not know."""
    release = version(program.module)
    if program.module == "kubernetes":
        major, minor = release.removeprefix("v").split(".")[:2]
        names = {"gitVersion": release, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
        # kubectl and the servers read the same variables; client-go has its own copy.
        packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        stamps = [f"-X {package}.{name}={value}" for package in packages for name, value in names.items()]
    elif program.module == "helm":
        stamps = [f"-X helm.sh/helm/v3/internal/version.version={release}"]
    elif program.module == "kwok":
        stamps = [f"-X sigs.k8s.io/kwok/pkg/consts.Version={release.removeprefix('v')}"]
    else:
        stamps = []
    return " ".join(["-s", "-w", *stamps])


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file; wait for another build, but not for ever."""
    with path.open("w") as handle:
        deadline = time.monotonic() + LOCK_SECONDS_MAX
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BuildFailed(f"another build has held {path} for {LOCK_SECONDS_MAX} s") from None
                if not told:
                    print(f"another build holds {path}; waiting", flush=True)
                    told = True
                time.sleep(1)
        yield  # closing the file gives the lock back, also when the process dies


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Build the control plane that the cluster tests run against.")
    parser.add_argument("--check", action="store_true", help="build nothing; exit 0 when nothing is missing, else 1")
    check = parser.parse_args(arguments).check
    try:
        if check:
            absent = missing()
            print("missing: " + ", ".join(absent) if absent else "nothing is missing")
            print(cache_folder())
            return 1 if absent else 0
        folder = build()
    except BuildFailed as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 2
    for name, path in locate().items():
        print(f"{name}: {path}")
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
