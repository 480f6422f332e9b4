"""Builds the hit path in C for the wheel, where there is a compiler; else the wheel is a pure one.

`SINGLEFLIGHT_PURE=1` does not try. `SINGLEFLIGHT_REQUIRE_SPEED=1` fails where it could not be built. A wheel
is tagged for one platform only after the build has worked.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "singleflight.decorator._hits"
SOURCE = "singleflight/decorator/_hits.c"


def is_set(name: str) -> bool:
    """Return True if this variable of the environment says yes."""
    return os.environ.get(name, "").lower() not in ("", "0", "false", "no", "off")


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """What hatchling calls; see above."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files of a wheel."""
        if self.target_name != "wheel":
            return
        required = is_set("SINGLEFLIGHT_REQUIRE_SPEED")
        reason = why_not()
        if reason is None:
            try:
                built = build(Path(self.root), inplace=version == "editable")
            except BaseException as error:  # setuptools exits where no compiler is found
                if isinstance(error, KeyboardInterrupt) or required:
                    raise
                reason = str(error) or type(error).__name__
        if reason is not None:
            if required:
                raise RuntimeError(f"SINGLEFLIGHT_REQUIRE_SPEED is set, and this was not built: {reason}")
            self.app.display_warning(f"The hit path in C is not built, pure Python is used: {reason}")
            return
        if version != "editable":
            build_data["force_include"][str(built)] = f"singleflight/decorator/{built.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


def why_not() -> str | None:
    """Why it is not even tried here, or None."""
    if is_set("SINGLEFLIGHT_PURE"):
        return "SINGLEFLIGHT_PURE is set"
    if sys.implementation.name != "cpython":
        return f"it is for CPython, and this is {sys.implementation.name}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "it needs the global interpreter lock"
    return None


def build(root: Path, inplace: bool) -> Path:
    """Compile it, beside its source or in a temporary folder; return the file."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    os.chdir(root)
    distribution = Distribution({"name": "singleflight-kit", "ext_modules": [Extension(NAME, [SOURCE])]})
    command = build_ext(distribution)
    folder = tempfile.mkdtemp()
    command.build_lib, command.build_temp, command.inplace = folder, folder, inplace
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(NAME)).resolve()
