"""The compiled module (csrc/bindings), after the libmlip.so of the installed torch, which it needs."""

from mlip_deploy.libraries import load_library

load_library()

from mlip_deploy._core._compiled import *  # noqa: E402, F403
