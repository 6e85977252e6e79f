"""Make a talking video from a portrait, speech and an emotion."""

import sys

from ..job import DENOISE, DTYPES, FPS, NOISES, PLACING, Job, defaults
from ..sampling.speed import PUBLISHED, SAMPLERS, SCHEDULES, SPEEDS
from .clips import add_clip_arguments
from .flags import flag

HELP = "make a talking video from a portrait or a video, speech and an emotion"

EXAMPLES = (
    ("a happy clip", "--portrait me.jpg --audio speech.wav --emotion happy --output talking.mp4"),
    (
        "from neutral to a strong smile, cut to the face, at the model's own frame rate",
        '--portrait me.jpg --audio speech.wav --emotion "0s neutral; 1.5s happy:1.4 smooth" --crop --fps 12.5 '
        "--output talking.mp4",
    ),
    (
        "with the emotion of a clip, whose landmarks are in a file",
        "--portrait me.jpg --audio speech.wav --emotion clip:reference.mp4 --landmarks reference.csv "
        "--output talking.mp4",
    ),
    (
        "another emotion for a video",
        "--video talk.mp4 --emotion sad --denoise 0.55 --output sad.mp4",
    ),
    ("another voice for it", "--video talk.mp4 --audio french.wav --emotion neutral --output dubbed.mp4"),
    (
        "with a script, whose words say when the emotions come, and subtitles",
        '--portrait me.jpg --audio speech.wav --script "[happy] Hello there. [sad 0.7] I have to go." --subtitles '
        "--output talking.mp4",
    ),
    (
        "faster, for a look at it",
        "--portrait me.jpg --audio speech.wav --emotion happy --speed draft --output talking.mp4",
    ),
    (
        "continue after an interruption",
        "--portrait me.jpg --audio speech.wav --emotion happy --output talking.mp4 --resume",
    ),
)


def add_arguments(parser):
    add, usual, published = parser.add_argument, defaults(), SPEEDS[PUBLISHED]
    add("--portrait", metavar="FILE", help="image of one person, face to the camera")
    add(
        "--video",
        metavar="FILE",
        help="instead of a portrait: a video of one person, who gets another emotion, or with --audio another voice",
    )
    add(
        "--audio",
        metavar="FILE",
        help="speech; also a video, whose sound is taken (default with --video: its own sound)",
    )
    add(
        "--emotion",
        default=usual["emotion"],
        metavar="TEXT",
        help="angry, contempt, disgusted, fear, happy, neutral, sad or surprised; happy:1.3 for more of it, happy:0.5 "
        'for less; a mix as "(sad 0.7 + fear 0.3)"; a timeline as "0s neutral; 1.5s happy smooth"; a saved one '
        "(.safetensors); or clip:FILE, read from a video, sound or picture (default: %(default)s)",
    )
    add(
        "--script",
        metavar="TEXT",
        help='what is said, with emotions in brackets, as "[happy] Hello there. [sad 0.7] Bye."; or a .txt file of it. '
        "Each emotion comes with its first word; --emotion is for what is before the first bracket",
    )
    add(
        "--fade",
        type=float,
        default=usual["fade"],
        metavar="S",
        help="with --script: seconds over which an emotion comes, before its first word (default: %(default)s)",
    )
    add(
        "--place-words",
        choices=PLACING,
        default=usual["place_words"],
        help="with --script: by Whisper, whose tokenizer.json must be there, or by the sound alone (default: "
        "Whisper where it can)",
    )
    add(
        "--subtitles",
        action="store_true",
        help="with --script: write its words as subtitles, into the video and beside it as .srt",
    )
    add("--output", required=True, metavar="FILE", help="the video to write, .mp4; an existing one is replaced")
    add(
        "--checkpoint",
        metavar="DIR",
        help="folder of the weights, or its name (default: the first one found); a student of distill has steps, a "
        "sampler and scales of its own, which are the defaults of these options then",
    )
    add(
        "--start",
        type=float,
        default=usual["start"],
        metavar="S",
        help="where the speech starts, in seconds (default: 0)",
    )
    add("--length", type=float, metavar="S", help="length of the speech, in seconds (default: to the end)")
    add("--fps", choices=FPS, default=usual["fps"], help="25 doubles the model's 12.5 (default: %(default)s)")
    add("--size", type=int, default=usual["size"], help="short side of the video in pixels (default: %(default)s)")
    add(
        "--keep-resolution",
        action="store_true",
        help="resize the video to the portrait's own size, or that of the part which --crop cuts out",
    )
    add("--crop", action="store_true", help="cut the portrait to a square around the face")
    add(
        "--margin",
        type=float,
        default=usual["margin"],
        help="with --crop: how much is kept around the face, as a share of its size (default: %(default)s)",
    )
    add(
        "--face",
        metavar="FACE",
        help="the face: x1,y1,x2,y2 in pixels, hairline to chin; or largest, left or right; or its number from the "
        "left (default: largest)",
    )
    add("--seed", type=int, default=usual["seed"], help="another seed, another video (default: %(default)s)")
    add(
        "--best-of",
        type=int,
        default=usual["best_of"],
        metavar="N",
        help="sample N seeds, from --seed on, and keep the one in which the network's own classifier reads the emotion "
        "best; see emotion classes (default: %(default)s)",
    )
    add(
        "--meter",
        action="store_true",
        help="show what emotion the network's own classifier reads while it samples, and write a chart beside the "
        "video, as out.meter.png; see emotion classes",
    )
    add(
        "--noise",
        choices=NOISES,
        default=usual["noise"],
        help="published: as the authors' script draws it, on CUDA, by its own seed and for whole frames of speech, to "
        "compare videos (default: %(default)s)",
    )
    add(
        "--speed",
        choices=SPEEDS,
        help="published; or fast or draft, which compute a third and a fifth of the pictures, and change the result: "
        "they set the options from --steps to --clamp-windows, where those are not given (default: published)",
    )
    add("--steps", type=int, help=f"sampling steps (default: {published['steps']})")
    add(
        "--sampler",
        choices=SAMPLERS,
        help=f"dpmpp_2m needs fewer steps; lcm is what a student of distill uses (default: {published['sampler']})",
    )
    add(
        "--schedule",
        choices=SCHEDULES,
        help=f"of the noise levels; align_your_steps is for about 10 steps (default: {usual['schedule']})",
    )
    add(
        "--guidance-from",
        type=float,
        metavar="SIGMA",
        help="guide from this noise level down; steps above it compute one branch of three (default: 1000, all)",
    )
    add(
        "--guidance-to",
        type=float,
        metavar="SIGMA",
        help="guide down to this noise level; steps below it compute one branch of three (default: 0, all)",
    )
    add(
        "--guidance-reuse",
        type=int,
        metavar="N",
        help="compute guidance at every Nth step, and add the same again at those between; never at the first two "
        "steps (default: 1, every step)",
    )
    add(
        "--deep-cache",
        type=int,
        metavar="N",
        help="compute the inner levels of the UNet at every Nth step, and reuse them at those between; not with "
        "several processes (default: 1, every step)",
    )
    add(
        "--clamp-windows",
        action="store_const",
        const=True,
        help="end the windows where the clip does: no frames are computed behind it, which saves half of a 3 s clip",
    )
    add(
        "--reference-scale",
        type=float,
        help="how closely the video keeps to the portrait (default: 3)",
    )
    add(
        "--emotion-scale",
        type=float,
        help="guidance: how far the frames go beyond what the model draws without speech and emotion; for one of the "
        "two alone, see --speech-strength and --emotion-strength (default: 6)",
    )
    add(
        "--speech-strength",
        type=float,
        default=usual["speech_strength"],
        help="how much the speech adds inside the model, apart from guidance: the lips move more or less, 0 to 2 "
        "(default: %(default)s)",
    )
    add(
        "--emotion-strength",
        type=float,
        default=usual["emotion_strength"],
        help="how much the emotion adds inside the model, apart from guidance, 0 to 2 (default: %(default)s)",
    )
    add(
        "--denoise",
        type=float,
        metavar="D",
        help="with --video: how much of it is made again, more than 0 to 1 for all; 0.4 to 0.7 keep the head and the "
        f"place (default: {DENOISE})",
    )
    add(
        "--decode-chunk-size",
        type=int,
        metavar="N",
        help="frames decoded at once, besides 4 or more to either side for context (default: as many as fit in memory)",
    )
    add(
        "--resume",
        action="store_true",
        help="resume an interrupted run from its last saved step; without one, start at the beginning",
    )
    add(
        "--smaller-windows",
        action="store_true",
        help="if memory is too small for windows of 25 frames, use shorter ones, which changes the result",
    )
    add(
        "--compile",
        action="store_true",
        help="compile the UNet's blocks, which takes a while at the first step and is meant for GPUs; warm-up does it "
        "before, and later runs find it on the disk",
    )
    add("--device", help="cpu, cuda, cuda:1, mps … (default: cuda if there is one, else cpu)")
    add("--dtype", choices=DTYPES, help="default: float16 on cuda, else float32")
    add_clip_arguments(parser, "with --emotion clip:FILE")


def run(args):
    values = {name: value for name, value in vars(args).items() if name not in ("command", "resume")}
    job = Job.of(values, named=flag)
    from ..rendering import render
    from ..sampling.processes import join_processes

    join_processes()

    def warn(text):
        print(f"dicetalk generate: {text}", file=sys.stderr)

    made = render(job, resume=args.resume, warn=warn, named=flag)
    if made.frames == 0:  # another process has written it
        return 0
    print(
        f"{job.output}: {made.frames} frames, {made.seconds:.2f} s at {job.fps} fps, {made.width}×{made.height} pixels"
    )
    return 0
