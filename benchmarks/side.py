"""One side of a comparison as a process: `python -m benchmarks.side MODULE FOLDER ANSWER`."""

import importlib
import sys
from pathlib import Path

from benchmarks.harness import write_outcome

if __name__ == "__main__":
    module, folder, answer = sys.argv[1:]
    write_outcome(importlib.import_module(module).run(Path(folder)), Path(answer))
