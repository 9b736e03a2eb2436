"""Where compiled scenes are kept: REHEARSAL_CACHE, or the user's cache folder."""

import os
from pathlib import Path


def cache_root() -> Path:
    """Returns the folder, which may not exist yet."""
    if chosen := os.environ.get("REHEARSAL_CACHE"):
        return Path(chosen) / "libero"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rehearsal" / "libero"
