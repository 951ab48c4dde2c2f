"""Documents with canaries (components.data.documents.canaries), for who wants to measure what a model gives away.

They go the way of every other document: shares, filters, redaction, near duplicates, the split. evaluate says how many
arrived with their secret, and which secrets the models write. What held-out text costs a model holds theirs as well.
"""

from collections.abc import Iterator

from components.data.documents.canaries import PACKAGE, canaries, planted_document
from components.data.documents.licences import OWN
from components.data.sources.config import CanarySource
from components.data.sources.reading.document_batch import Batch, documents


def read(config: CanarySource) -> Iterator[Batch]:
    """All documents in one batch, named by canary and copy."""
    pairs = [(each, copy) for each in canaries(config.count) for copy in range(config.copies)]
    rows = len(pairs)
    yield Batch(
        documents=documents(
            {
                "text": [planted_document(each, copy) for each, copy in pairs],
                "path": [f"{each.name}/{copy}.py" for each, copy in pairs],
                "package": [PACKAGE] * rows,
                "licence": [OWN] * rows,
                "language": ["python"] * rows,
            }
        )
    )
