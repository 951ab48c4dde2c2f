"""Parameters of the data stages. Light to import: params.yaml is checked as a whole before any stage starts."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from components.core.config import StepConfig
from components.data.documents.licences import OWN, PERMISSIVE, refused
from components.data.documents.path_patterns import as_regex
from components.data.sources.config import DEFAULT_SOURCES, AnySource

# Every language that a path is known by (components.data.documents.programming_languages); a test compares.
DEFAULT_LANGUAGES = (
    *("c", "cpp", "csharp", "go", "java", "javascript", "markdown", "php", "python", "ruby", "rust", "shell", "sql"),
    "typescript",
)
DEFAULT_OPT_OUT = "opt-out.yaml"
# Folders that by custom hold copies of other projects; `vendor` in the middle of a name is somebody's own.
VENDORED_PATHS = (
    "vendor/",
    "_vendor/",
    "vendored/",
    "_vendored/",
    "vendored_packages/",
    "third_party/",
    "third-party/",
    "thirdparty/",
    "thirdparty_files/",
    "3rdparty/",
    "node_modules/",
    "bower_components/",
    "jspm_packages/",
    "site-packages/",
    "dist-packages/",
    ".venv/",
    "Pods/",
    "Carthage/",
    "Godeps/",
)
LOCK_FILES = (
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lock",
    "deno.lock",
    "composer.lock",
    "Gemfile.lock",
    "Cargo.lock",
    "poetry.lock",
    "Pipfile.lock",
    "pdm.lock",
    "uv.lock",
    "flake.lock",
    "go.sum",
    "go.work.sum",
    "gradle.lockfile",
    "Package.resolved",
    "Podfile.lock",
    "mix.lock",
    "pubspec.lock",
)
MINIFIED_FILES = (
    "*.min.js",
    "*.min.mjs",
    "*.min.cjs",
    "*.min.css",
    "*-min.js",
    "*-min.css",
    "*.bundle.js",
    "*.chunk.js",
)


def _check_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no pattern of .gitignore."""
    for pattern in patterns:
        as_regex(pattern)
    return patterns


def _check_ids(licences: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse an allow list with anything but plain SPDX ids in it."""
    for licence in licences:
        refused(licence, (licence,))
        if " " in licence:
            raise ValueError(f"{licence!r} is an expression; list the ids one by one")
    return licences


class IngestConfig(StepConfig):
    """Which documents enter, from where, and how many."""

    sources: tuple[AnySource, ...] = Field(
        DEFAULT_SOURCES, description="where documents come from, each with its share"
    )
    licences: tuple[str, ...] = Field(
        (*PERMISSIVE, OWN), min_length=1, description="SPDX ids whose documents may enter; others are counted and left"
    )
    opt_out: str = Field(
        DEFAULT_OPT_OUT, min_length=1, description="file of repositories, paths, authors and ids that stay out"
    )
    max_bytes: int = Field(40_000_000, ge=1, description="size of the subset, UTF-8 bytes of text")
    shard_bytes: int = Field(128_000_000, ge=1_000_000, le=1_000_000_000, description="text bytes of one Parquet file")
    seed: int = Field(0, ge=0, description="seed of the order that the subset is taken in")

    _licences = field_validator("licences")(_check_ids)

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: tuple[AnySource, ...]) -> tuple[AnySource, ...]:
        if not sources:
            raise ValueError("needed at least one source, such as {kind: directory, path: src}")
        labels = [each.label for each in sources]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]}; give each a name of its own")
        return sources


Share = Annotated[float, Field(ge=0, le=1)]
_MOSTLY = "share of documents that must pass a rule of the suite, by rule, e.g. {%s}; all where a rule is not named"


class DriftConfig(StepConfig):
    """How far the corpus may have moved away from that of the model in production; judged by the cycle."""

    action: Literal["off", "warn", "block"] = Field(
        "warn", description="what a shift beyond max_psi does: nothing, a note, or the end of the cycle (exit code 4)"
    )
    max_psi: float = Field(
        0.25, gt=0, description="largest population stability index of a column; above 0.25 is commonly called a shift"
    )
    min_documents: int = Field(
        500, ge=1, description="with fewer documents on either side nothing is judged: chance alone moves the index"
    )


class CheckRawConfig(StepConfig):
    """The bounds of the suite raw.json, and how many documents may fail it."""

    licences: tuple[str, ...] = Field((*PERMISSIVE, OWN), min_length=1, description="SPDX ids that may pass")
    languages: tuple[str, ...] = Field(DEFAULT_LANGUAGES, min_length=1, description="languages that may pass")
    min_document_bytes: int = Field(1, ge=0, description="smallest document, UTF-8 bytes")
    max_document_bytes: int = Field(1_000_000, ge=1, description="largest document, UTF-8 bytes")
    max_replacement_share: float = Field(
        0.001,
        ge=0,
        le=1,
        description="largest share of U+FFFD characters: the trace of text decoded with a wrong codec",
    )
    max_control_share: float = Field(
        0.01, ge=0, le=1, description="largest share of control characters other than white space: binary in disguise"
    )
    max_line_characters: int = Field(100_000, ge=1, description="longest line: beyond it is data, not source")
    max_quarantined_share: float = Field(
        0.05, ge=0, le=1, description="stop the cycle when a larger share of documents is quarantined"
    )
    mostly: dict[str, Share] = Field(
        default_factory=dict, description=_MOSTLY % "decoding_damage: 0.99" + "; below it the cycle stops"
    )
    # Judged against what lies outside the graph, so it is no part of the artifact's identity.
    drift: DriftConfig = Field(
        default_factory=DriftConfig, exclude=True, description="shift against the corpus of the model in production"
    )

    _licences = field_validator("licences")(_check_ids)


class CheckCleanConfig(StepConfig):
    """The bounds of the suite clean.json, which blocks whatever comes after it."""

    licences: tuple[str, ...] = Field((*PERMISSIVE, OWN), min_length=1, description="SPDX ids that may pass")
    languages: tuple[str, ...] = Field(DEFAULT_LANGUAGES, min_length=1, description="languages that may pass")
    min_documents: int = Field(100, ge=1, description="fewest documents that are worth training on")
    min_document_bytes: int = Field(1, ge=0, description="smallest document after cleaning, UTF-8 bytes")
    max_document_bytes: int = Field(1_000_000, ge=1, description="largest document after cleaning, UTF-8 bytes")
    max_line_characters: int = Field(1_000, ge=1, description="longest line after cleaning")
    min_alphanumeric_share: float = Field(0.2, ge=0, le=1, description="smallest share of letters and digits")
    mostly: dict[str, Share] = Field(default_factory=dict, description=_MOSTLY % "few_alphanumeric: 0.999")
    drift: DriftConfig = Field(
        default_factory=DriftConfig, exclude=True, description="shift against the corpus of the model in production"
    )

    _licences = field_validator("licences")(_check_ids)


class FeedbackContract(StepConfig):
    """The bounds of the suite feedback.json."""

    earliest: float = Field(1_577_836_800.0, ge=0, description="earliest time of an event, seconds since the epoch")
    latest: float = Field(4_102_444_800.0, ge=0, description="latest time of an event, seconds since the epoch")
    max_event_bytes: int = Field(1_048_576, ge=1, description="prompt and completion together, UTF-8 bytes")
    max_events_per_user: int = Field(
        100, ge=1, description="newest events of one user that count; a number, not a share: shares do not protect"
    )
    mostly: dict[str, Share] = Field(default_factory=dict, description=_MOSTLY % "user_over_cap: 0.9")


class FilterConfig(StepConfig):
    """Which documents are worth keeping."""

    vendored_paths: tuple[str, ...] = Field(
        VENDORED_PATHS, description="drop documents below these paths, copies of other people's code; as in .gitignore"
    )
    lock_files: tuple[str, ...] = Field(LOCK_FILES, description="drop lists of dependencies; as in .gitignore")
    minified_files: tuple[str, ...] = Field(MINIFIED_FILES, description="drop minified files; as in .gitignore")
    min_document_bytes: int = Field(64, ge=0, description="drop smaller documents, UTF-8 bytes")
    max_mean_line_characters: int = Field(100, ge=1, description="drop documents whose mean line is longer")
    max_line_characters: int = Field(1_000, ge=1, description="drop documents with a longer line")
    generated_lines: int = Field(
        30, ge=0, description="drop documents whose opening comment, within so many lines, says generated; 0: keep them"
    )
    check_language: bool = Field(True, description="drop documents whose first lines are of another language")
    max_encoded_share: float = Field(
        0.5, ge=0, le=1, description="drop documents with a larger share in runs of base64, escapes or byte lists"
    )
    min_alphanumeric_share: float = Field(0.25, ge=0, le=1, description="drop documents with fewer letters and digits")
    max_high_entropy_share: float = Field(
        0.1, ge=0, le=1, description="drop documents with a larger share in long words that look random; 1: keep them"
    )
    check_syntax: bool = Field(True, description="drop documents that the parser of their language refuses")
    max_error_share: float = Field(
        0.01, ge=0, le=1, description="largest share of bytes that tree-sitter has no place for (not Python, C and C++)"
    )
    max_error_share_c: float = Field(
        0.05, ge=0, le=1, description="the same for C and C++, whose macros no parser can see through"
    )

    _patterns = field_validator("vendored_paths", "lock_files", "minified_files")(_check_patterns)


class RedactConfig(StepConfig):
    """What private data becomes placeholders."""

    kinds: tuple[Literal["email", "ip", "key", "name"], ...] = Field(
        ("email", "ip", "key"),
        description="kinds of private data that become placeholders; name is a person in an author line",
    )
    copyright_names: bool = Field(
        False, description="with the kind name, also persons in copyright lines, which licences ask to keep"
    )
    min_key_characters: int = Field(
        16, ge=8, description="shortest value under a secret's name that counts as random; shorter ones as passwords"
    )
    min_key_entropy_bits: float = Field(
        3.3, ge=0, le=8, description="smallest entropy of such a value, bits per character; random base64 has 4 to 6"
    )
    min_hex_entropy_bits: float = Field(
        2.8,
        ge=2.6,
        le=4,
        description="smallest entropy of such a value of hex digits, bits per character; letters alone reach 2.58",
    )


class DuplicateConfig(StepConfig):
    """Which documents repeat others, exactly or nearly, and which of them stay."""

    near: bool = Field(True, description="drop documents that nearly repeat a kept one")
    shingle_tokens: int = Field(5, ge=1, le=50, description="words per shingle of a document's set of shingles")
    similarity: float = Field(
        0.7, gt=0, le=1, description="exact Jaccard similarity from which documents are near duplicates"
    )
    num_permutations: int = Field(128, ge=16, le=1024, description="MinHash values per document")
    rows_per_band: int = Field(
        4,
        ge=1,
        le=64,
        description="values per LSH band; candidates share one of num_permutations / rows_per_band bands",
    )
    keep: tuple[Literal["licence", "source", "longest", "shortest_path"], ...] = Field(
        ("licence", "source", "longest", "shortest_path"),
        description="which duplicate stays, first criterion first; ties go to the smaller id, then the smaller path",
    )
    licences: tuple[str, ...] = Field(
        (OWN, "CC0-1.0", "Unlicense", "0BSD", "MIT-0", "MIT", "ISC", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0"),
        description="SPDX ids for `keep: licence`, the one preferred first; others come after them",
    )
    sources: tuple[str, ...] = Field(
        (), description="names of sources for `keep: source`, the one preferred first; others come after them"
    )
    seed: int = Field(0, ge=0, description="seed of the MinHash permutations")

    _licences = field_validator("licences")(_check_ids)

    @model_validator(mode="after")
    def _bands_are_whole(self) -> "DuplicateConfig":
        if self.num_permutations % self.rows_per_band:
            raise ValueError(
                f"num_permutations {self.num_permutations} is no multiple of rows_per_band {self.rows_per_band}"
            )
        return self


class DecontaminateConfig(StepConfig):
    """Which documents hold items that the models will be measured on."""

    suites: tuple[str, ...] = Field(
        ("components/evaluation/measures/suites/short_tasks.jsonl",),
        description="files of items, from the repository's root; all that evaluate runs",
    )
    ngram_words: int = Field(10, ge=2, le=50, description="words per n-gram; passages of fewer words match as a whole")
    min_words: int = Field(8, ge=2, le=50, description="passages of fewer words are in many programs: not looked for")
    min_share: float = Field(
        0.3, gt=0, le=1, description="drop documents with this share of the n-grams of a prompt, solution or test"
    )


class CleanConfig(StepConfig):
    """Filters, redaction and deduplication."""

    filters: FilterConfig = Field(default_factory=FilterConfig, description="which documents are worth keeping")
    redact: RedactConfig = Field(default_factory=RedactConfig, description="what becomes placeholders")
    duplicates: DuplicateConfig = Field(default_factory=DuplicateConfig, description="which documents repeat others")
    decontaminate: DecontaminateConfig = Field(
        default_factory=DecontaminateConfig, description="which documents hold what the models are measured on"
    )
    task_bytes: int = Field(
        8_000_000,
        ge=100_000,
        le=256_000_000,
        description="text bytes per Ray task; a worker needs about five times as much, and 250 MB",
    )
    shard_bytes: int = Field(128_000_000, ge=1_000_000, le=1_000_000_000, description="text bytes of one Parquet file")

    @property
    def named_files(self) -> tuple[str, ...]:
        """The suites: a passage of another one is another document to drop."""
        return self.decontaminate.suites
