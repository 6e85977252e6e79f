"""Let two or more persons in one picture talk with each other, each with an emotion and a track of speech. Each is made
in a crop of their own, and pasted back. A run that is interrupted starts again."""

from ..job import DTYPES, FPS, Job, defaults
from .flags import flag

HELP = "let two or more persons in one picture talk with each other"

EXAMPLES = (
    (
        "a recording for each, from the left; who is silent listens",
        "--picture two.jpg --emotion happy --emotion neutral --audio a.wav --audio b.wav --output talk.mp4",
    ),
    (
        "one recording with marked turns",
        '--picture two.jpg --emotion angry --emotion sad --audio both.wav --turns "0s 1; 2.5s 2" --output talk.mp4',
    ),
    (
        "one recording with a channel for each, and faces by number",
        '--picture five.jpg --faces "2; 4" --emotion happy --emotion sad --audio stereo.wav --output talk.mp4',
    ),
)

_NUMBERS = ("size", "margin", "seed", "steps", "reference_scale", "emotion_scale", "decode_chunk_size")


def add_arguments(parser):
    add, usual = parser.add_argument, defaults()
    add("--picture", required=True, metavar="FILE", help="image of all persons, faces to the camera")
    add(
        "--emotion",
        dest="emotions",
        required=True,
        action="append",
        metavar="TEXT",
        help="of a person, from the left, as generate takes it (but clip:FILE); once for each person",
    )
    add(
        "--audio",
        dest="audios",
        required=True,
        action="append",
        metavar="FILE",
        help="speech: once for each person; or once, with a channel for each person or with --turns",
    )
    add("--turns", default="", metavar="TEXT", help='who speaks from when on, such as "0s 1; 2.5s 2; 4s -"')
    add(
        "--faces",
        default="",
        metavar="TEXT",
        help='which faces, such as "1; 3" from the left, or x1,y1,x2,y2 for each (default: all, from the left)',
    )
    add("--output", required=True, metavar="FILE", help="the video to write, .mp4; an existing one is replaced")
    add("--checkpoint", metavar="DIR", help="folder of the weights, or its name (default: the first one found)")
    add("--fps", choices=FPS, default=usual["fps"], help="25 doubles the model's 12.5 (default: %(default)s)")
    add("--size", default=usual["size"], metavar="N", help="side of each crop in pixels (default: %(default)s)")
    add(
        "--margin",
        default=usual["margin"],
        metavar="M",
        help="how much is kept around each face, as a share of its size; less where that would reach into the next "
        "face (default: %(default)s)",
    )
    add(
        "--feather",
        type=float,
        default=0.1,
        metavar="F",
        help="width of the soft edge of each crop, as a share of its side, 0 to 0.5 (default: %(default)s)",
    )
    add("--seed", default=usual["seed"], metavar="N", help="another seed, another video (default: %(default)s)")
    add("--steps", metavar="N", help="sampling steps (default: 25, or a student's own)")
    add("--reference-scale", metavar="S", help="as in generate (default: 3, or a student's own)")
    add("--emotion-scale", metavar="S", help="as in generate (default: 6, or a student's own)")
    add("--decode-chunk-size", metavar="N", help="frames decoded at once (default: as many as fit in memory)")
    add("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if there is one, else cpu)")
    add("--dtype", choices=DTYPES, help="default: float16 on cuda, else float32")


def run(args):
    names = {"portrait": "--picture"}
    values = {name: getattr(args, name) for name in (*_NUMBERS, "output", "checkpoint", "fps", "device", "dtype")}
    values |= {"portrait": args.picture, "audio": args.audios[0]}
    job = Job.of(values, named=lambda name: names.get(name, flag(name)))
    from ..batch.dialogue import render_dialogue

    made = render_dialogue(job, args.emotions, args.audios, args.turns, args.faces, args.feather)
    print(
        f"{job.output}: {made.frames} frames, {made.seconds:.2f} s at {job.fps} fps, {made.width}×{made.height} pixels"
    )
    return 0
