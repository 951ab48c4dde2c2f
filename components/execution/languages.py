"""Languages that the sandbox runs, as a table: files, how to compile, how to run, and what has to be installed.

A program's verdict is a nonce that is written on descriptor 3 when the test has ended well. Who writes it is the
table's concern: a last statement (Bash, JavaScript), a class or a test file of our own (Java, Go), or a `main` that the
linker puts around the program's (C, C++, Rust), so that `return` from main counts and `exit` does not.
Tests are written as MultiPL-E and HumanEval-X write them. `console.assert` only warns in node: here it throws.

A control is the same program with one false assertion after its last line, in the language's own words and in the
program's own scope; in Python with an assertion of the test turned round (control.py). A program that passes even then
has forged its verdict or disarmed assertions.
Not covered: Bash tests without `set -e`; C tests without <assert.h>, whose control traps instead; modules beside each
language's own (node_modules, crates, Go modules).
"""

import ast
import functools
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from components.execution import toolchains
from components.execution.control import control_of

Files = dict[str, str]

_CONSOLE = (
    "Object.defineProperty(globalThis.console, 'assert', "
    "{writable: false, configurable: false, value: (ok, ...words) => "
    "{ if (!ok) throw new Error(['console.assert: false', ...words].join(' ')) }});"
)
_WRAPPER = """#include <unistd.h>
extern int __real_main(int, char **, char **);
extern void overnight_control(void);
int __wrap_main(int count, char **arguments, char **environment) {
    static const char nonce[] = "%s";
    int status = __real_main(count, arguments, environment);
    if (status) return status;
    overnight_control();
    return write(3, nonce, sizeof nonce - 1) < 0;
}
"""
_C_CONTROL = "#ifdef assert\n    assert(0);\n#else\n    __builtin_trap();\n#endif"


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """One language. `files(source, test, nonce, control)` are those to compile or run; `tools` are looked for on the
    PATH; `threads` is what its runtime starts on its own; `file_name` is what its own tools call a program. `trivial`
    is a program that passes; `imports(text)` are the lines of a text that need something to be installed, each of which
    makes a program of its own before the trivial one."""

    name: str
    file_name: str
    tools: tuple[str, ...]
    package: str
    run: tuple[str, ...]
    compile: tuple[str, ...] | None = None
    files: Callable[[str, str, str, bool], Files]
    trivial: str = ""
    imports: Callable[[str], Iterator[str]]
    offers: str = "what is installed with its toolchain"
    threads: int = 16
    memory_bytes: int = 2**28  # less than this and the runtime or the compiler does not start


def _javascript(source: str, test: str, nonce: str, control: bool) -> Files:
    false = "console.assert(false, 'control');\n" if control else ""
    verdict = f"globalThis.process.once('beforeExit', () => require('fs').writeSync(3, '{nonce}'));"
    return {"program.js": f"{_CONSOLE}\n{source}{test}\n{false}{verdict}\n"}


def _bash(source: str, test: str, nonce: str, control: bool) -> Files:
    return {"program.sh": f"{source}{test}\n{'[[ 1 = 2 ]]' if control else ''}\nprintf %s {nonce} >&3\n"}


def _c(suffix: str, linkage: str, source: str, test: str, nonce: str, control: bool) -> Files:
    check = f"\n{linkage}void overnight_control(void) {{\n{_C_CONTROL if control else ''}\n}}\n"
    return {f"program.{suffix}": source + test + check, "verdict.c": _WRAPPER % nonce}


def _rust(source: str, test: str, nonce: str, control: bool) -> Files:
    check = f'\n#[no_mangle]\npub extern "C" fn overnight_control() {{ {"assert!(false);" if control else ""} }}\n'
    return {"program.rs": source + test + check, "verdict.c": _WRAPPER % nonce}


def _java(source: str, test: str, nonce: str, control: bool) -> Files:
    """The class whose main is the test is the last one before it; its file must be named after it."""
    source += test
    before = source[: match.start()] if (match := re.search(r"static\s+void\s+main\b", source)) else source
    name = (re.findall(r"\bclass\s+(\w+)", before) or ["Main"])[-1]
    verdict = (
        "public class Verdict {\n    public static void main(String[] arguments) throws Exception {\n"
        f"        {name}.main(arguments);\n        {'assert false;' if control else ''}\n"
        '        try (java.io.FileOutputStream out = new java.io.FileOutputStream("/proc/self/fd/3")) {\n'
        f'            out.write("{nonce}".getBytes());\n        }}\n    }}\n}}\n'
    )
    return {f"{name}.java": source, "Verdict.java": verdict}


def _go(source: str, test: str, nonce: str, control: bool) -> Files:
    """A Go test: `TestMain` is ours, so what counts is what the framework says of every test."""
    source += test
    package = match[1] if (match := re.search(r"^package\s+(\w+)", source, re.MULTILINE)) else "main"
    verdict = (
        f'package {package}\n\nimport (\n\t"os"\n\t"testing"\n)\n\nfunc TestMain(m *testing.M) {{\n'
        "\tcode := m.Run()\n\tif code == 0 {\n"
        f'\t\tos.NewFile(3, "verdict").WriteString("{nonce}")\n\t}}\n\tos.Exit(code)\n}}\n'
    )
    if control:
        verdict += '\nfunc TestOvernightControl(t *testing.T) { t.Fatal("control") }\n'
    return {"program_test.go": source, "verdict_test.go": verdict, "go.mod": "module program\n\ngo 1.18\n"}


def _python(source: str, test: str, nonce: str, control: bool) -> Files:
    """Run by the warm server, which writes the nonce itself."""
    return {"program.py": source + (control_of(source, test) if control else test)}


def _python_imports(text: str) -> Iterator[str]:
    """Modules that a text imports; not those that it tries to import, or names for type checkers."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a prompt that ends in the middle
        yield from (f"import {name}" for name in re.findall(r"^(?:import|from)\s+(\w+)", text, re.MULTILINE))
        return
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (f"import {each.name}" for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield f"import {node.module}"
        elif not isinstance(node, ast.Try | ast.If):
            waiting.extend(ast.iter_child_nodes(node))


def _lines(pattern: str, form: str, text: str) -> Iterator[str]:
    """What a pattern finds in a text, each in the form of a line."""
    yield from (form % each for each in re.findall(pattern, text, re.MULTILINE))


_INCLUDES = functools.partial(_lines, r"^\s*#\s*include\s*(<[^>\n]+>)", "#include %s")
_REQUIRES = functools.partial(_lines, r"\brequire\(\s*['\"]([\w@/:.-]+)['\"]\s*\)", "require('%s')")
_JAVA_IMPORTS = functools.partial(_lines, r"^\s*import\s+((?:static\s+)?[\w.*]+)\s*;", "import %s;")
_NO_IMPORTS = functools.partial(_lines, r"(?!)", "%s")  # their compilers refuse what is imported and not used
_MAIN = "int main() { return 0; }\n"
_WRAPPED = ("-Wl,--wrap=main", "-o", "program")
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xmx192m", "-Xss8m")

LANGUAGES = {
    each.name: each
    for each in (
        Language(
            name="python",
            file_name="program.py",
            tools=(),
            package="",
            run=(),
            files=_python,
            imports=_python_imports,
            offers="the standard library, and numpy where this environment has it",
        ),
        Language(
            name="javascript",
            file_name="program.js",
            tools=("node",),
            package="nodejs",
            run=("node", "program.js"),
            files=_javascript,
            imports=_REQUIRES,
            threads=32,
        ),
        Language(
            name="bash",
            file_name="program.sh",
            tools=("bash",),
            package="bash",
            run=("bash", "program.sh"),
            files=_bash,
            imports=_NO_IMPORTS,
            threads=32,
        ),
        Language(
            name="c",
            file_name="program.c",
            tools=("gcc",),
            package="gcc",
            compile=("gcc", "-std=gnu17", "-O1", "-w", "program.c", "verdict.c", *_WRAPPED, "-lm"),
            run=("./program",),
            files=functools.partial(_c, "c", ""),
            trivial=_MAIN,
            imports=_INCLUDES,
        ),
        Language(
            name="cpp",
            file_name="program.cpp",
            tools=("g++", "gcc"),
            package="g++",
            compile=("g++", "-std=gnu++17", "-O1", "-w", "program.cpp", "-xc", "verdict.c", *_WRAPPED),
            run=("./program",),
            files=functools.partial(_c, "cpp", 'extern "C" '),
            trivial=_MAIN,
            imports=_INCLUDES,
        ),
        Language(
            name="java",
            file_name="Main.java",
            tools=("java", "javac"),
            package="default-jdk-headless",
            compile=("sh", "-c", f"exec javac {' '.join('-J' + each for each in _JVM)} -encoding UTF-8 *.java"),
            run=("java", *_JVM, "-ea", "-cp", ".", "Verdict"),
            files=_java,
            trivial="class Main { public static void main(String[] arguments) {} }\n",
            imports=_JAVA_IMPORTS,
            threads=64,
            memory_bytes=2**29,
        ),
        Language(
            name="go",
            file_name="program_test.go",
            tools=("go",),
            package="golang-go",
            compile=("go", "test", "-c", "-o", "program"),
            run=("./program",),
            files=_go,
            trivial='package program\n\nimport "testing"\n\nfunc TestNothing(t *testing.T) {}\n',
            imports=_NO_IMPORTS,
            threads=64,
            memory_bytes=2**30,
        ),
        Language(
            name="rust",
            file_name="program.rs",
            tools=("rustc", "gcc"),
            package="rustc",
            compile=(
                "sh",
                "-c",
                "gcc -c verdict.c && exec rustc --edition 2021 -A warnings -C debug-assertions=on program.rs -o program"
                " -C link-arg=verdict.o -C link-arg=-Wl,--wrap=main",
            ),
            run=("./program",),
            files=_rust,
            trivial="fn main() {}\n",
            imports=_NO_IMPORTS,
            threads=64,
            memory_bytes=2**30,
        ),
    )
}


def language(name: str) -> Language:
    """The language of that name. Raises ValueError that names the known ones."""
    if name not in LANGUAGES:
        raise ValueError(f"language {name!r} cannot be run; known: {', '.join(LANGUAGES)}")
    return LANGUAGES[name]


@functools.cache
def missing(name: str) -> str | None:
    """What to install before the language can be run here; None when it can."""
    definition = language(name)
    absent = [tool for tool in definition.tools if shutil.which(tool) is None]
    if absent:
        return f"{' and '.join(absent)} not found; install {definition.package}"
    installed = [each for name in definition.tools if (each := toolchains.tool(name)) is not None]
    refused = next((each.refused for each in installed if each.refused), None)
    return f"{refused}; install {definition.package}" if refused else None


def tools() -> tuple[str, ...]:
    """Every tool of every language."""
    return tuple(dict.fromkeys(tool for each in LANGUAGES.values() for tool in each.tools))
