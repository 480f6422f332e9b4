"""Every scene: who is there, and what they do."""

from __future__ import annotations

from . import calls, combined, gathered
from .settings import FORKS, SCENES, Setting

__all__ = ["FORKS", "SCENES", "Setting", "calls", "combined", "gathered"]
