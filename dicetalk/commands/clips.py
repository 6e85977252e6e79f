"""The options of a reference clip, which two commands share."""

from ..embedder.options import EVIDENCE


def add_clip_arguments(parser, to_what=""):
    """Add the options; `to_what` says in the help what they belong to."""
    add = parser.add_argument_group("reference clip", to_what or None).add_argument
    add(
        "--embedder",
        default=EVIDENCE,
        metavar="FILE",
        help='what reads it: "evidence", which needs no training, or a trained embedder (.safetensors) '
        "(default: %(default)s)",
    )
    add("--landmarks", metavar="FILE", help="its blendshapes, 52 a frame, as .csv, .npy or .safetensors")
    add(
        "--face-landmarker",
        metavar="FILE",
        help="MediaPipe's face_landmarker.task, to find the blendshapes; needs the package mediapipe",
    )
    add(
        "--face-model",
        metavar="DIR",
        help="with evidence: a Hugging Face image-classification model of emotions, which looks at the face",
    )
    add(
        "--voice-model",
        metavar="DIR",
        help="with evidence: a Hugging Face audio-classification model of emotions, in place of prosody",
    )
    add("--timeline", action="store_true", help="follow the clip over time; otherwise one emotion for the whole clip")
    add("--chart", metavar="PNG", help="draw what was read over time")
