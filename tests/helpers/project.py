"""Where things lie in this checkout."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo"
GOLDEN = ROOT / "tests" / "golden"
STATE_DICTS = ROOT / "tests" / "state_dicts.json"  # names and shapes of the published weights
GRAPHS = ROOT / "tests" / "nodes" / "graphs"
