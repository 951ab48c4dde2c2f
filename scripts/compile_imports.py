"""Import every module of components and flows once, and what they import late, so that Python keeps the bytecode.

What is imported for the first time is compiled first: 14 of the 21 s of sft's imports in a new environment, for which
the deadline of a first cycle would pay. Takes 24 s on two cores; all of site-packages would take 48 s and 570 MB.
"""

import importlib
import pkgutil
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress

PACKAGES = ("components", "dashboards", "flows")
# By other packages when something runs: Prefect's and MLflow's servers, torch.compile.
LATE = (
    "torch._inductor.compile_fx",
    "prefect.server.api.server",
    "mlflow.server.fastapi_app",
)


def modules() -> list[str]:
    """Names of all modules, in their order."""
    return [
        each.name
        for package in PACKAGES
        for each in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        if not each.name.endswith("__main__")
    ]


def load(name: str) -> None:
    """One module; what cannot be imported here, as an engine for GPUs, is left to whoever needs it."""
    with suppress(Exception):
        importlib.import_module(name)


if __name__ == "__main__":
    with ProcessPoolExecutor(max_workers=2) as pool:  # each holds all of it in memory
        list(pool.map(load, (*LATE, *modules())))
