"""Draw people who never lived: a sheet of faces with their emotions, or one of them who says a sentence.

They are the world that this project trains and measures in where there are no recordings. The same numbers give the
same people, pictures and sound. A video comes with its landmarks (.csv) and a portrait (.png) beside it."""

HELP = "draw people: a sheet of their emotions, or a talking take with its landmarks and portrait"

EXAMPLES = (
    ("six people, each with all emotions", "--sheet people.png"),
    ("one of them says a sentence, angrily", "--output take.mp4 --person 3 --emotion angry --sentence 5"),
)


def add_arguments(parser):
    parser.add_argument("--sheet", metavar="PNG", help="write a sheet of people (rows) and emotions (columns)")
    parser.add_argument("--output", metavar="MP4", help="write a take; its landmarks and portrait get the same name")
    parser.add_argument(
        "--recordings",
        metavar="DIR",
        help="write recordings of all emotions and levels as train-embedder reads them: sound and landmarks, and "
        "videos where --size is given",
    )
    parser.add_argument("--sentences", action="store_true", help="print the sentences with their numbers")
    parser.add_argument(
        "--person", type=int, default=0, metavar="N", help="who; of several the first one (default: %(default)s)"
    )
    parser.add_argument(
        "--people", type=int, default=6, metavar="N", help="how many on a sheet or in recordings (default: %(default)s)"
    )
    parser.add_argument(
        "--takes",
        type=int,
        default=4,
        metavar="N",
        help="recordings of each person, emotion and level (default: %(default)s)",
    )
    parser.add_argument("--emotion", default="happy", help="of the take: one of the eight (default: %(default)s)")
    parser.add_argument(
        "--level", type=int, metavar="N", help="1, 2 or 3, slight to strong (default: 3, which neutral does not have)"
    )
    parser.add_argument(
        "--sentence",
        default="0",
        metavar="TEXT",
        help="what the take says: a number of --sentences, or a text of words that they use (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the take's small motion and melody (default: 0)")
    parser.add_argument(
        "--size", type=int, metavar="PX", help="side of a face's picture (default: 96 of a sheet, 256 of a take)"
    )


def run(args):
    from ..errors import InputError

    if not (args.sheet or args.output or args.recordings or args.sentences):
        raise InputError(
            "Give --output for a take, --sheet for a sheet of people, --recordings for many takes, or --sentences for "
            "what they say."
        )
    if args.sentences:
        from ..drawn.sentences import SENTENCES

        for number, text in enumerate(SENTENCES):
            print(f"{number:2d}  {text}")
    if args.sheet:
        _sheet(args)
    if args.recordings:
        _recordings(args)
    if args.output:
        _take(args)
    return 0


def _sheet(args):
    from pathlib import Path

    from ..drawn.person import Person
    from ..drawn.sheet import sheet
    from ..errors import InputError
    from ..media.image import save_png

    if not args.sheet.lower().endswith(".png"):
        raise InputError(f"--sheet is {args.sheet}: the sheet is a PNG file; end its name with .png.")
    people = [Person.of(number) for number in range(args.person, args.person + max(args.people, 0))]
    save_png(sheet(people, 96 if args.size is None else args.size, args.level), args.sheet)
    print(f"Wrote {Path(args.sheet).absolute()}")


def _recordings(args):
    from pathlib import Path

    from tqdm import tqdm

    from ..drawn.expression import CLASSES
    from ..drawn.files import write_recordings
    from ..drawn.person import Person
    from ..drawn.sentences import SENTENCES
    from ..drawn.take import Take
    from ..errors import InputError

    for name in ("people", "takes"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} is {getattr(args, name)}: give 1 or more.")
    takes = (
        Take(person, emotion, level, (person.number + 7 * number + 3 * place) % len(SENTENCES), number)
        for person in map(Person.of, range(args.person, args.person + args.people))
        for place, (emotion, level) in enumerate(CLASSES)
        for number in range(args.takes)
    )
    total = args.people * args.takes * len(CLASSES)
    for _ in tqdm(write_recordings(args.recordings, takes, args.size), total=total, unit="take", disable=None):
        pass
    print(f"Wrote {total} takes of {args.people} people to {Path(args.recordings).absolute()}")


def _take(args):
    from ..drawn.files import write_take
    from ..drawn.person import Person
    from ..drawn.take import Take

    size = 256 if args.size is None else args.size
    sentence = int(args.sentence) if args.sentence.strip().isdecimal() else args.sentence
    take = Take(Person.of(args.person), args.emotion, args.level, sentence, args.seed)
    paths = write_take(take, args.output, size)
    print(f"person {args.person}, {take.emotion}, level {take.level}, {len(take) / 12.5:g} s: {take.sentence}")
    print("face box, hairline to chin: " + ",".join(f"{value:g}" for value in take.face_box(size)))
    for path in paths:
        print(f"Wrote {path.absolute()}")
