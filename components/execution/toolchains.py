"""What programs see of this machine, read-only: the system's folders, Python, numpy and the tools of other languages.

A tool or a Python outside of the system's folders, say in somebody's home, is shown as what it needs and nothing beside
that: its binary, the libraries that this loads, and those folders of its installation that hold its own library. Such a
folder is refused when it holds the user's home, a name that keys go by, or a file that others may not read although
they may read the tool. Fronts (rustup, the shims of version managers) are asked where the tool itself is.
Not covered: keys that everybody may read under a name of their own, inside a folder of a toolchain's own library.
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.core.graph.closure import ROOT
from components.execution.walls import LINKS, PACKAGES

SYSTEM = tuple(
    Path("/usr", each)
    for each in (
        *("bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "include", "share"),
        *("local/bin", "local/lib", "local/lib64", "local/libexec", "local/include", "local/share"),
    )
)
MERGED = tuple(map(Path, ("/bin", "/lib", "/lib32", "/lib64", "/libx32")))  # links into /usr, or folders beside it
SETTINGS = tuple(map(Path, ("/etc/alternatives", "/etc/services", "/etc/protocols", "/etc/mime.types")))
MAX_PROCESSORS = 8  # what programs are told, so that Pool() fits their limit of processes on every machine
SECRETS = re.compile(
    r"\.(ssh|aws|azure|config|docker|env|git|git-credentials|gnupg|kube|netrc|npmrc|pypirc)|credentials|id_(dsa|ecdsa|ed25519|rsa)"
)
# Tool -> what it is asked to say where it is, and where in the answer that stands.
QUESTIONS = {
    "node": (("-p", "process.execPath"), r"(.+)/bin/node$"),
    "java": (("-XshowSettings:properties", "-version"), r"java\.home = (.+)$"),
    "rustc": (("--print", "sysroot"), r"(.+)$"),
    "go": (("env", "GOROOT"), r"(.+)$"),
}
# Tool -> what of its installation it reads beside its binary: folders and files.
LIBRARIES = {
    "gcc": ("lib/gcc", "libexec/gcc", "bin/as", "bin/ld"),
    "g++": ("lib/gcc", "libexec/gcc", "include/c++", "bin/as", "bin/ld"),
    "java": ("lib", "conf"),
    "javac": ("lib", "conf"),
    "go": ("pkg/tool", "pkg/include", "pkg/linux_amd64", "pkg/linux_arm64", "src", "lib", "VERSION", "go.env"),
    "rustc": ("lib",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool and all that is shown for it; `refused` says why nothing is."""

    binary: Path
    shown: tuple[Path, ...] = ()
    refused: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the jail's root holds. `private` is target -> source; `hidden` are folders of the system that are empty in
    the jail, `hidden_within` those of what is private; `links` and `texts` are path -> target and path -> content."""

    system: tuple[str, ...]
    hidden: tuple[str, ...]
    private: dict[str, str]
    hidden_within: tuple[str, ...]
    links: dict[str, str]
    texts: dict[str, str]

    def settings(self) -> dict[str, Any]:
        """The fields, as the jail reads them."""
        return asdict(self)


@functools.cache
def interpreter() -> Path:
    """The interpreter beneath the virtual environment."""
    path = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    return path if path.exists() else Path(sys.executable).resolve()


@functools.cache
def python() -> Tool:
    """The interpreter with the standard library; no packages that were installed into it."""
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    beside = [each for each in library.parent.glob("*.so*") if not each.name.startswith("libpython")]
    modules = sorted(library.glob("lib-dynload/*.so")) if beside else []  # as in conda, which brings its own
    return _tool(interpreter(), [library], modules, inside=(_site_packages(),))


@functools.cache
def tool(name: str) -> Tool | None:
    """A tool of a language, where there is one on the PATH."""
    path = shutil.which(name)
    if path is None:
        return None
    binary = Path(path).resolve()
    if _in_system(binary):
        return Tool(binary=binary)
    home = _home_of(name, path)
    binary = home / "bin" / Path(name).name if home else binary
    if not binary.exists():
        return Tool(binary=binary, refused=f"{path} is a front, and {binary} is absent")
    return _tool(binary, [binary.parent.parent / each for each in LIBRARIES.get(name, ())], ())


@functools.cache
def view(names: tuple[str, ...]) -> View:
    """What programs see, with the tools of those names."""
    tools = [python(), *(each for name in names if (each := tool(name)) is not None)]
    private = {str(path): str(path) for each in tools for path in each.shown}
    private |= {f"{PACKAGES}/{path.name}": str(path) for path in _packages()}
    links = {str(path): str(path.readlink()) for path in MERGED if path.is_symlink()}
    # a tool below /tmp leaves no room for the link there; programs are told of another folder for what is temporary
    links |= {path: to for path, to in LINKS.items() if not any(each.startswith(f"{path}/") for each in private)}
    if str(interpreter()) in private:
        links |= {str(interpreter().with_name(each)): interpreter().name for each in ("python", "python3")}
    beside = [path for path in MERGED if path.is_dir() and not path.is_symlink()]
    settings = [path for path in (*SETTINGS, *Path("/etc").glob("java-*")) if path.exists()]
    return View(
        system=tuple(map(str, [path for path in SYSTEM if path.is_dir()] + beside + settings)),
        hidden=tuple(map(str, _private_in_system())),
        private=private,
        hidden_within=tuple(str(path) for path in (_site_packages(),) if path.is_dir()),
        links=links,
        texts={
            "/etc/hosts": "127.0.0.1 localhost box\n::1 localhost\n",
            "/sys/devices/system/cpu/online": f"0-{min(os.cpu_count() or 1, MAX_PROCESSORS) - 1}\n",
        },
    )


@functools.cache
def search_path(names: tuple[str, ...]) -> str:
    """PATH of programs: where the tools of those names are, then the system's folders."""
    tools = [python(), *(each for name in names if (each := tool(name)) is not None)]
    folders = [str(each.binary.parent) for each in tools if each.shown]
    return ":".join(dict.fromkeys([*folders, "/usr/local/bin", "/usr/bin", "/bin"]))


def baits(names: tuple[str, ...]) -> list[Path]:
    """Folders in which a user may keep keys and which programs must not see into: the home folder, those around what is
    shown of tools outside of the system, and the memory that processes of the host share."""
    tools = [python(), *(each for name in names if (each := tool(name)) is not None)]
    around = [parent for each in tools if each.shown for parent in (each.binary.parent, each.binary.parent.parent)]
    return [
        path
        for path in dict.fromkeys([Path.home(), Path("/dev/shm"), *around])
        if path.is_dir() and os.access(path, os.W_OK)
    ]


def _tool(binary: Path, library: Sequence[Path], modules: Sequence[Path], inside: Sequence[Path] = ()) -> Tool:
    """A tool with its binary, what this loads, and its library but for the folders `inside` of it that are hidden."""
    if _in_system(binary):
        return Tool(binary=binary)
    for path in library:
        if reason := _refusal(path, inside, public=bool(binary.stat().st_mode & 0o004)):
            return Tool(binary=binary, refused=f"{path} holds {reason}, so programs may not see it")
    loaded = [path for path in _loaded((binary, *modules)) if not any(path.is_relative_to(each) for each in library)]
    return Tool(
        binary=binary, shown=tuple(dict.fromkeys([binary, *(each for each in library if each.exists()), *loaded]))
    )


def _in_system(path: Path) -> bool:
    """Whether programs see a path anyway."""
    shown = any(path.is_relative_to(each) for each in (*SYSTEM, *MERGED))
    return shown and not any(path.is_relative_to(each) for each in _private_in_system())


@functools.cache
def _private_in_system() -> tuple[Path, ...]:
    """The home folder and this very project, where they lie in folders of the system."""
    own = (Path.home().resolve(), ROOT.resolve())
    return tuple(path for path in dict.fromkeys(own) if any(each in path.parents for each in SYSTEM) and path.is_dir())


def _home_of(name: str, path: str) -> Path | None:
    """Where a tool says that it is installed; None for one that is not asked, or does not say."""
    executable = "java" if name == "javac" else name
    front = str(Path(path).with_name(executable))
    if executable not in QUESTIONS or not Path(front).exists():
        return None
    question, answer = QUESTIONS[executable]
    try:
        words = subprocess.run([front, *question], capture_output=True, text=True, check=False, cwd="/")
    except OSError:
        return None
    place = re.search(answer, words.stdout + words.stderr, re.MULTILINE)
    return Path(place[1].strip()).resolve() if place else None


def _refusal(folder: Path, inside: Sequence[Path], *, public: bool) -> str | None:
    """What a folder holds that no program may see; a file that others may not read where the tool is `public`."""
    home = Path.home().resolve()
    if home.is_relative_to(folder.resolve()):
        return "your home folder"
    if folder.parent in (home, home / ".local"):
        return "what other programs have installed beside it"
    for path, mode in _entries(folder, inside):
        if SECRETS.fullmatch(path.name):
            return str(path.relative_to(folder))
        if public and not mode & 0o004:
            return f"{path.relative_to(folder)}, which others may not read"
    return None


def _entries(folder: Path, inside: Sequence[Path]) -> Iterator[tuple[Path, int]]:
    """Everything below a folder with its mode, but for what is `inside`."""
    if not folder.is_dir() or folder in inside:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_symlink() and entry.name != "__pycache__":  # whoever imported first has made its files
                yield Path(entry.path), entry.stat().st_mode
                if entry.is_dir():
                    yield from _entries(Path(entry.path), inside)


def _loaded(binaries: Sequence[Path]) -> list[Path]:
    """Shared libraries outside of the system's folders that binaries load, under the names that they are looked for."""
    if shutil.which("ldd") is None:
        return []
    listing = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    named = {os.path.normpath(each) for each in re.findall(r"(?:=> |^\s)(/\S+) \(0x", listing, re.MULTILINE)}
    return [Path(each) for each in sorted(named) if not _in_system(Path(each))]


def _site_packages() -> Path:
    """Where packages would be installed into the Python beneath the virtual environment."""
    return Path(sysconfig.get_path("purelib", vars={"base": sys.base_prefix}))


@functools.cache
def _packages() -> tuple[Path, ...]:
    """numpy of this environment, for tests that import it, with the libraries in the folder beside it."""
    spec = importlib.util.find_spec("numpy")
    if spec is None or spec.origin is None:
        return ()
    folder = Path(spec.origin).parent
    return tuple(path for path in (folder, folder.with_name("numpy.libs")) if path.is_dir())
