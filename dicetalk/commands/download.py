"""Download what a checkpoint lacks: DICE-Talk's four parts, Whisper and Stable Video Diffusion from the Hugging Face
hub, and the emotion priors from the authors' repository. Lists the files and their sizes before it starts. Existing
files stay as they are; an interrupted download resumes where it stopped."""

HELP = "download the published weights, or what is missing of them"

EXAMPLES = (
    ("everything that is missing, into ComfyUI's models or ./checkpoints", ""),
    ("the emotion priors alone, without asking", "--only emotions --yes"),
    ("into a folder of your own", "--output checkpoints"),
)


def add_arguments(parser):
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="the checkpoint folder (default: the one in ComfyUI's models folder, or models/dicetalk if there is none "
        "yet; without ComfyUI, ./checkpoints)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=("dice-talk", "whisper", "svd", "emotions", "words"),
        help="download only these: DICE-Talk's parts, Whisper, Stable Video Diffusion's VAE and CLIP vision, the "
        "emotion priors; or Whisper's tokenizer, with which it places a script's words, fetched only so",
    )
    parser.add_argument("--yes", action="store_true", help="start without asking")


def run(args):
    import sys

    from tqdm import tqdm

    from ..checkpoints.download import GROUPS, WORDS, describe, fetch, left_to_fetch, plan_download, svd_places
    from ..checkpoints.svd_files import find_svd_file
    from ..errors import InputError
    from ..files import require_space

    output = _output(args.output)
    groups = [group for group in (*GROUPS, WORDS) if group in (args.only or GROUPS)]
    if "svd" in groups and (file := find_svd_file(svd_places(output))):
        print(f"{file} is there, and holds Stable Video Diffusion's VAE and CLIP vision tower: they are not fetched.")
    files, refusals = plan_download(output, groups)
    if not files and not refusals:
        print(f"Nothing is missing in {output}")
        return 0
    if files:
        print(f"To fetch into {output}:\n{describe(files)}")
        print("DICE-Talk's weights and priors are under CC BY-NC-SA 4.0: no commercial use.")
        for repository in refusals:
            print(f"Not among them: {repository}, whose licence has to be accepted first.")
        require_space(output, left_to_fetch(files))
        if not args.yes and not _agreed(sys.stdin):
            raise InputError("Nothing was fetched. Give --yes to start without being asked.")
        with tqdm(total=sum(file.size for file in files), unit="B", unit_scale=True, disable=None) as bar:
            before = 0
            for file in files:
                bar.set_description(file.target.name)
                fetch(file, lambda count, before=before: bar.update(before + count - bar.n))
                before += file.size
                bar.update(before - bar.n)
        print(f"Fetched {len(files)} files into {output}")
    if refusals:
        raise InputError(" ".join(refusals.values()))
    return 0


def _output(given):
    from pathlib import Path

    if given:
        return Path(given).expanduser().absolute()

    from ..checkpoints.finding import comfyui_models_folders, find_checkpoints

    for models in comfyui_models_folders():
        if models.is_dir():
            found = find_checkpoints([models / "dicetalk"]).values()
            return next((checkpoint.root for checkpoint in found if not checkpoint.untrained), models / "dicetalk")
    return Path("checkpoints").absolute()


def _agreed(stdin):
    if not stdin.isatty():
        return False
    return input("Start? [Y/n] ").strip().lower() in ("", "y", "yes")
