"""The Go programs of a real control plane: pinned by the modules here, built by `build.py`."""
