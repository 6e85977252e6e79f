"""The page's reader and writer of the text form against those of the command line."""

import json
import random

from dicetalk.emotion.text import Mixed, Named, Timed, format_text, parse_text
from dicetalk.errors import InputError

TEXTS = [
    "0s neutral; 1.5s happy:1.2 smooth; 4s (sad 0.7 + fear 0.3) step",
    " 0s neutral ;1.5 s happy : 1.2 smooth; 4s tokens ( sad .7+fear 3e-1 ):2 step ; ",
    r'"a \"b\" \\":0.5',
    "moments(sad 1e-05 + tokens(fear + a-b 123456789012345678):0.1 1e22 + x 0.00012):1.5",
    "happy:-0",
    "1e-7s happy; 1e5s sad; 172800s fear",
    "0s happy; 172800.000001s sad",
    "0s happy; 1e307s sad",
    "0s happy; 1e999s sad",
    "12345678901234567890s fear",
    "(happy 12345678901234567890 + sad 1e16 + fear 1e-7)",
    "0s Müdigkeit²; 1s 愉快 smooth; 2s x٣",
    "٣s happy",
    "happy\u3000\x1f\x85:\u20281",
    "happy\ufeff",
    '0s "linear"; 1s "smooth" smooth',
    "0s linear",
    '"\u200b"',
    '"\U0001f600" \U0001f600',
    "\U0001f600",
    "",
    " \n\t",
    "happy:1e999",
    "(" * 16 + "happy" + ")" * 16,
    "(" * 17 + "happy" + ")" * 17,
    "blend(sad + fear)",
    "(sad 0 + fear 0)",
    "(sad -0 + fear)",
    '"a\tb"',
    '"a\\b"',
    '"open',
    "happy" * 900,
    "Happy 70% + sad 30%",
    "(sad 0,7, fear 0,3):120%",
    "sad:0.7, fear:0.3",
    "happy=1,3;",
    "my own smile",
    "happy 0.5 sad",
    "70% happy",
    "0s neutral\n500ms happy 1.2 Smooth\n1:02.5 sad + fear, 00:01:10,250: sad",
    "0秒",
    "00:01:02:12 sad",
    "（sad 0.7 ＋ fear 30％）：1.2； ",
    "0s “my ；smile”; 1s 'b'; 2s «c»",
]
PIECES = [
    *'0123456789.:;()+-"\\',
    "s",
    " ",
    "  ",
    "\n",
    "e5",
    "happy",
    "sad",
    "fear",
    "tokens",
    "moments",
    "barycentre",
]
PIECES += [",", "%", "=", "：", "（", "“", "'", "1:02.5", "ms", "0,3", "Step"]
PIECES += ["smooth", "step", "linear", '"my smile"', "1.5s", "0.7", "ü", "\U0001f600", "\u3000", "²", "٣"]
PIECES += ["_", "x-y"]

READ = """async (texts) => {
    const { formatText, parseText } = await import("/extensions/comfyui-dice-talk/emotion_text.js");
    const read = texts.map((text) => {
        try {
            const tree = parseText(text);
            return [tree, formatText(tree)];
        } catch (error) {
            return [error.message, error.position];
        }
    });
    return JSON.stringify(read);
}"""


def cases():
    """Fixed texts, those with small changes, and pieces put together at random (the same every time)."""
    chance = random.Random(1)
    texts = list(TEXTS)
    for text in [text for text in TEXTS if 0 < len(text) < 200] * 25:
        at = chance.randrange(len(text))
        texts.append(text[:at] + chance.choice(["", chance.choice(PIECES)]) + text[at + chance.randrange(3) :])
    texts += ["".join(chance.choices(PIECES, k=chance.randrange(1, 14))) for _ in range(1500)]
    texts += [
        f"{chance.choice(PIECES)}s {chance.choice(['happy', '(sad + fear)', 'x'])}:{chance.choice(PIECES)}"
        for _ in range(300)
    ]
    return texts


def as_json(tree):
    if isinstance(tree, Named):
        return {"kind": "named", "name": tree.name, "intensity": tree.intensity}
    if isinstance(tree, Mixed):
        parts = [[weight, as_json(part)] for weight, part in tree.parts]
        return {"kind": "mixed", "parts": parts, "method": tree.method, "intensity": tree.intensity}
    keys = [{"time": key.time, "emotion": as_json(key.emotion), "easing": key.easing} for key in tree.keys]
    return {"kind": "timed", "keys": keys}


def expected(text):
    try:
        tree = parse_text(text)
    except InputError as error:
        return str(error)
    assert isinstance(tree, (Named, Mixed, Timed))
    return [as_json(tree), format_text(tree)]


def test_texts_read_and_are_written_as_on_the_command_line(opened):
    texts = cases()
    wanted = [expected(text) for text in texts]
    read = json.loads(opened.page.evaluate(READ, texts), parse_int=float)
    for text, want, got in zip(texts, wanted, read, strict=True):
        assert (got[0] if isinstance(want, str) else got) == want, f"{text!r}"
    good = sum(not isinstance(want, str) for want in wanted)
    assert good > 150 and len(texts) - good > 150, "both texts that are right and texts that are wrong"
