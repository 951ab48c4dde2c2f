"""Parameters of the sources that ingest mixes: one class a kind. Light to import, as every config is.

A path is relative to the workspace. Credentials are never parameters: each client finds its own.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from components.core.addresses import git_address, without_password
from components.core.config import StepConfig
from components.data.documents.licences import OWN
from components.data.documents.path_patterns import checked

DETECT = "detect"
_HUB_ADVICE = "leave it out and set HF_TOKEN, or log in with `hf auth login`"


class Source(StepConfig):
    """What every source has: a name for its documents, its share of the corpus, and bounds."""

    name: str = Field(
        "", pattern=r"^[A-Za-z0-9._-]*$", description="what `source` says in its documents; its kind when empty"
    )
    weight: float = Field(1.0, gt=0, description="share of ingest.max_bytes beside the weights of the other sources")
    max_bytes: int | None = Field(None, ge=1, description="cap on what this source gives, UTF-8 bytes of text")
    max_document_bytes: int = Field(
        10_000_000, ge=1, description="larger documents are left; they are mostly data in disguise"
    )

    @property
    def label(self) -> str:
        """The name, else the kind: what `source` says in the documents."""
        return self.name or str(getattr(self, "kind", "source"))


class PythonEnvironmentSource(Source):
    """The standard library and the installed distributions of the running interpreter."""

    kind: Literal["python-environment"] = "python-environment"


class FilesSource(Source):
    """What the sources of files have in common: which files, and what is said of them."""

    include: tuple[str, ...] = Field(
        (), description="patterns as in .gitignore; only files that match one are taken, all when empty"
    )
    exclude: tuple[str, ...] = Field((), description="patterns as in .gitignore; files that match one are left")

    @field_validator("include", "exclude")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            checked(pattern)
        return patterns


class DirectorySource(FilesSource):
    """Files below one directory."""

    kind: Literal["directory"] = "directory"
    path: str = Field(min_length=1, description="the directory")
    gitignore: bool = Field(True, description="leave what a .gitignore there, or in a directory below, leaves out")
    package: str = Field("own", min_length=1, description="package name of the documents")
    version: str = Field("", description="version of the documents")
    licence: str = Field(
        OWN, min_length=1, description="SPDX id of the documents; `detect` reads the nearest LICENSE file above each"
    )


class GitSource(FilesSource):
    """Files of one revision of a Git repository, and edits of Python functions from its history if asked for."""

    kind: Literal["git"] = "git"
    url: str = Field(min_length=1, description="https, ssh or file URL, or a path, of the repository")
    revision: str = Field(
        "HEAD", min_length=1, pattern=r"^[^\s:^+~?*\[\\-][^\s:^~?*\[\\]*$", description="branch, tag or commit"
    )
    package: str | None = Field(None, min_length=1, description="package name; the end of the URL when absent")
    licence: str = Field(
        DETECT, min_length=1, description="SPDX id of the documents; `detect` reads the nearest LICENSE file above each"
    )
    timeout_seconds: float = Field(3600.0, gt=0, description="give up when fetching the revision takes longer")
    history_commits: int = Field(
        0, ge=0, le=20_000, description="commits before the revision whose edits of functions are kept; 0: no history"
    )

    @field_validator("url")
    @classmethod
    def _no_command_and_no_password(cls, url: str) -> str:
        return git_address(url)


class Columns(StepConfig):
    """Which column of a table is which column of a document; a dot goes into a struct. Absent: as the shape says."""

    text: str | None = Field(None, description="column of the text")
    path: str | None = Field(None, description="column of the path")
    package: str | None = Field(None, description="column of the repository or package")
    version: str | None = Field(None, description="column of the revision or version")
    licence: str | None = Field(None, description="column of the licence, a name or a list of names")
    language: str | None = Field(None, description="column of the programming language")
    author: str | None = Field(None, description="column of the author, for opt-outs")


class TableSource(Source):
    """What the sources of tables have in common: a ready-made shape, columns that differ from it, and defaults."""

    shape: Literal["plain", "the-stack", "stackexchange"] = Field(
        "plain", description="ready-made column names: plain (ours), the-stack, stackexchange (question and answers)"
    )
    columns: Columns = Field(default_factory=Columns, description="columns that are called otherwise than in the shape")
    package: str | None = Field(None, min_length=1, description="package name of rows without one; else the file's")
    version: str = Field("", description="version of rows without one")
    licence: str | None = Field(
        None, min_length=1, description="SPDX id of rows that state none; they are left when absent"
    )
    language: str | None = Field(None, min_length=1, description="language of rows that state none; else by the path")


class ParquetSource(TableSource):
    """Rows of Parquet files, read by row group."""

    kind: Literal["parquet"] = "parquet"
    paths: tuple[str, ...] = Field(min_length=1, description="Parquet files, and directories of them")


class JsonlSource(TableSource):
    """Lines of JSON, plain or compressed by gzip or Zstandard."""

    kind: Literal["jsonl"] = "jsonl"
    paths: tuple[str, ...] = Field(
        min_length=1, description="files that end in .jsonl, .jsonl.gz or .jsonl.zst, and directories of them"
    )
    max_decompressed_ratio: float = Field(
        200.0, ge=1, description="stop reading a compressed file that grows beyond this many times its size: a bomb"
    )


class HuggingFaceSource(TableSource):
    """A data set of the Hugging Face Hub, or a folder laid out like one, as a stream."""

    kind: Literal["huggingface"] = "huggingface"
    dataset: str = Field(min_length=1, description="owner/name on the Hub, or a folder of this machine")
    revision: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{40}$",
        description="commit of the data set, 40 hex digits: branches and tags move; needed on the Hub alone",
    )
    config_name: str | None = Field(None, min_length=1, description="configuration of the data set; its default one")
    split: str = Field("train", min_length=1, description="split to read")
    data_files: tuple[str, ...] = Field(
        (), description="patterns of the files to read, relative to the data set; as its card says when empty"
    )

    @field_validator("dataset")
    @classmethod
    def _no_password(cls, dataset: str) -> str:
        return without_password(dataset, _HUB_ADVICE)

    @field_validator("data_files")
    @classmethod
    def _no_passwords(cls, data_files: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(without_password(each, _HUB_ADVICE) for each in data_files)


class S3Source(FilesSource, TableSource):
    """Objects below a prefix of a bucket: source files, and tables in Parquet or JSON lines."""

    kind: Literal["s3"] = "s3"
    bucket: str = Field(
        min_length=1, pattern=r"^[^\s:/@?]+$", description="the bucket; where it is and who may read it, boto3 is told"
    )
    prefix: str = Field("", description="what the keys start with; paths are relative to it")
    licence: str | None = Field(
        None, min_length=1, description="SPDX id of the files, and of rows that state none; left when absent"
    )
    max_decompressed_ratio: float = Field(
        200.0, ge=1, description="stop reading a compressed object that grows beyond this many times its size: a bomb"
    )
    range_bytes: int = Field(16_000_000, ge=1_000, description="larger objects are read in ranges of this size")
    threads: int = Field(16, ge=1, le=256, description="requests at once; memory is at most threads times range_bytes")
    keep_bytes: int = Field(
        50_000_000_000, ge=0, description="what is kept on disk until ingest is done, so that a rerun need not read it"
    )


class FeedbackSource(Source):
    """Completions of the serving model that people accepted."""

    kind: Literal["feedback"] = "feedback"
    path: str | None = Field(
        None, min_length=1, description="directory of Parquet files of events; feedback in the state directory"
    )
    max_events_per_user: int = Field(100, ge=1, description="newest events of one user that count")
    language: str = Field("python", min_length=1, description="language of the documents")
    licence: str = Field(OWN, min_length=1, description="SPDX id of the documents")


class CanarySource(Source):
    """Documents with planted secrets, to measure which of them the models give away."""

    kind: Literal["canaries"] = "canaries"
    count: int = Field(24, ge=1, description="planted secrets: API keys, mailboxes and account numbers in turn")
    copies: int = Field(8, ge=1, description="documents that hold each of them")


AnySource = Annotated[
    PythonEnvironmentSource
    | DirectorySource
    | GitSource
    | ParquetSource
    | JsonlSource
    | HuggingFaceSource
    | S3Source
    | FeedbackSource
    | CanarySource,
    Field(discriminator="kind"),
]
DEFAULT_SOURCES: tuple[AnySource, ...] = (PythonEnvironmentSource(),)
