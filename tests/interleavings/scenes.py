"""Every scene: who is there, and what they do."""

from __future__ import annotations

from . import calls, combined, dropped, gathered, limited
from .settings import FEATURES, FORKS, SCENES, Setting

__all__ = ["FEATURES", "FORKS", "SCENES", "Setting", "calls", "combined", "dropped", "gathered", "limited"]
