"""Imported first by each tool, so that it runs as a script: makes the checkout and the tests' helpers importable."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS / "helpers")]
