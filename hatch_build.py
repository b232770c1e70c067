"""Build hook: put the migrations and the custom resource definitions into real wheels."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CARRIED = {"migrations": "fairlead/_migrations", "crds": "fairlead/_crds"}


class CarryDataFiles(BuildHookInterface):  # type: ignore[type-arg]
    """Copy the two folders that live beside the source roots, except into an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add each folder that is there; an editable install reads them from the repository root instead."""
        if version == "editable":
            return
        for folder, inside in CARRIED.items():
            if (Path(self.root) / folder).is_dir():
                build_data["force_include"][folder] = inside
