"""Every command of the front page and the documents that does not say why it is not run, page by page, in a checkout.

The cycle is a tiny one: params.yaml of the checkout says so before the first command, and is put back after each page.
"""

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.core.config import Settings
from components.core.graph.closure import ROOT
from flows.running.params import compose, overridden
from tests.documents import PAGES, Block, blocks
from tests.workspace import TINY, Workspace, make

pytestmark = [pytest.mark.drill, pytest.mark.slow, pytest.mark.in_order]
RUN = {
    page: [block for block in blocks(page) if block.language == "sh" and block.reason is None]
    for page in PAGES  # the front page is the first, and makes the cycle that the others speak of
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A checkout with a tiny cycle's parameters, and a .venv that leads to the packages here and the code there."""
    made = make(tmp_path_factory.mktemp("documents") / "checkout")
    root = made.root
    (root / "params.yaml").write_text(overridden(compose("smoke", ROOT / "profiles"), TINY))
    programs = root / ".venv" / "bin"
    programs.mkdir(parents=True)
    python = shlex.quote(str(ROOT / ".venv" / "bin" / "python"))
    for name, words in {"python": "", "overnight": " -m flows.commands.cli", "dvc": " -m dvc"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {python}{words} "$@"\n')
        (programs / name).chmod(0o755)
    (programs / "activate").write_text(f"export PATH={shlex.quote(str(programs))}:$PATH\n")
    (root / ".venv" / ".installed").write_text((ROOT / ".venv" / ".installed").read_text())
    (root / ".overnight").mkdir(mode=0o700)
    commit(root)
    yield made
    made.overnight("down")


def commit(root: Path) -> None:
    """All that Git does not ignore."""
    author = ["-c", "user.name=reader", "-c", "user.email=reader@localhost"]
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    subprocess.run(["git", *author, "commit", "--quiet", "--message", "As it is"], cwd=root, check=True)


def run(workspace: Workspace, block: Block) -> str:
    """A block as a reader pastes it, with the ports of this workspace; what it printed."""
    text = block.text
    for name in ("gateway", "prefect", "mlflow"):
        default = Settings.model_fields[f"{name}_port"].default
        text = text.replace(f"localhost:{default}", f"localhost:{workspace.port(name)}")
    path = f"{workspace.root / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=workspace.root,
        env=workspace.variables | {"PATH": path},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if RUN[page]], ids=lambda page: page.name)
def test_a_page(workspace: Workspace, page: Path) -> None:
    parameters = (workspace.root / "params.yaml").read_text()
    if page != PAGES[0]:  # it ends with `make down`: this serves again, and runs nothing
        run(workspace, Block(page=page, language="sh", text="make cycle"))
    for block in RUN[page]:
        printed = run(workspace, block)
        if "/v1/completions" in block.text:
            assert '"choices"' in printed
    (workspace.root / "params.yaml").write_text(parameters)
    if page == PAGES[0]:
        commit(workspace.root)  # dvc.lock is the reader's to commit
