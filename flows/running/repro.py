"""`dvc repro --single-item STAGE` as a child that ends with its parent: `python -m flows.running.repro STAGE`."""

import sys

from dvc.cli import main

from components.core.process import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    sys.exit(main(["repro", "--single-item", sys.argv[1]]))
