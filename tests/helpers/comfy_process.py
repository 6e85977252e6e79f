"""ComfyUI's own classes and the pack inside the test's process, for what needs no server."""

import importlib.util
import os
import sys

ON_GPU = os.environ.get("DICETALK_TESTS_ON") == "gpu"


def load_pack(comfyui, root, cpu=True):
    """Import the pack from its folder as ComfyUI does, with --cpu or as its options say; returns the package."""
    if "dicetalk_pack" in sys.modules:
        return sys.modules["dicetalk_pack"]
    sys.path.append(str(comfyui))
    import comfy.cli_args

    comfy.cli_args.args.cpu = cpu
    spec = importlib.util.spec_from_file_location(
        "dicetalk_pack", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["dicetalk_pack"] = package
    spec.loader.exec_module(package)
    return package
