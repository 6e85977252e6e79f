"""What drawn people say: sentences, and how their words sound, in ARPAbet with 1 after a stressed vowel."""

import re

from ..errors import InputError

SENTENCES = (
    "We keep the boat by the blue bridge.",
    "My brother bought bread and butter.",
    "The people waited by the open door.",
    "She put the paper back on the table.",
    "Please bring me a cup of warm tea.",
    "They walk home by the river.",
    "The moon came up above the trees.",
    "I told them about the party.",
    "Maybe we can meet tomorrow.",
    "Four small boys play ball.",
    "He never opened the letter.",
    "The baby sleeps in the room above.",
    "You left your umbrella on the bus.",
    "Nobody saw the bird on the lamp.",
    "We have seven apples and a pear.",
    "The music stopped at midnight.",
    "My mother makes good soup.",
    "They were here before me.",
    "Put the big box over there.",
    "I remember that summer.",
    "The water is very deep here.",
    "Who moved my picture?",
    "Both of them work in the city.",
    "The boat goes home tomorrow.",
    "She reads the paper every day.",
    "Open the window, please.",
    "We play music in the room.",
    "He told me about the bird.",
    "The bus came before seven.",
    "My people live by the water.",
    "Bring the umbrella tomorrow.",
    "I saw the moon above the bridge.",
)

_WORDS = """
a AH | about AH B AW1 T | above AH B AH1 V | and AE N D | apples AE1 P AH L Z | at AE T | baby B EY1 B IY | back B AE1 K
ball B AO1 L | before B IH F AO1 R | big B IH1 G | bird B ER1 D | blue B L UW1 | boat B OW1 T | both B OW1 TH
bought B AO1 T | box B AA1 K S | boys B OY1 Z | bread B R EH1 D | bridge B R IH1 JH | bring B R IH1 NG
brother B R AH1 DH ER | bus B AH1 S | butter B AH1 T ER | by B AY | came K EY1 M | can K AE N | city S IH1 T IY
cup K AH1 P | day D EY1 | deep D IY1 P | door D AO1 R | every EH1 V R IY | four F AO1 R | goes G OW1 Z | good G UH1 D
have HH AE V | he HH IY | here HH IH1 R | home HH OW1 M | i AY | in IH N | is IH Z | keep K IY1 P | lamp L AE1 M P
left L EH1 F T | letter L EH1 T ER | live L IH1 V | makes M EY1 K S | maybe M EY1 B IY | me M IY | meet M IY1 T
midnight M IH1 D N AY T | moon M UW1 N | mother M AH1 DH ER | moved M UW1 V D | music M Y UW1 Z IH K | my M AY
never N EH1 V ER | nobody N OW1 B AH D IY | of AH V | on AA N | open OW1 P AH N | opened OW1 P AH N D | over OW1 V ER
paper P EY1 P ER | party P AA1 R T IY | pear P EH1 R | people P IY1 P AH L | picture P IH1 K CH ER | play P L EY1
please P L IY1 Z | put P UH1 T | reads R IY1 D Z | remember R IH M EH1 M B ER | river R IH1 V ER | room R UW1 M
saw S AO1 | seven S EH1 V AH N | she SH IY | sleeps S L IY1 P S | small S M AO1 L | soup S UW1 P | stopped S T AA1 P T
summer S AH1 M ER | table T EY1 B AH L | tea T IY1 | that DH AE T | the DH AH | them DH EH M | there DH EH1 R
they DH EY | told T OW1 L D | tomorrow T AH M AA1 R OW | trees T R IY1 Z | umbrella AH M B R EH1 L AH | up AH1 P
very V EH1 R IY | waited W EY1 T IH D | walk W AO1 K | warm W AO1 R M | water W AO1 T ER | we W IY | were W ER
who HH UW1 | window W IH1 N D OW | work W ER1 K | you Y UW | your Y AO R
"""
WORDS = {
    word: tuple(sounds)
    for word, *sounds in (entry.split() for entry in _WORDS.replace("\n", "|").split("|") if entry.strip())
}
PAUSE = "-"


def phonemes(text):
    """The sounds of a text, with a pause before, after and at commas: names as in ARPAbet.

    Args:
        text: words of WORDS, in any case, with punctuation.

    Raises:
        InputError: no words, too many, or unknown ones, which it names.
    """
    parts = re.findall(r"[a-z']+|[,.;:!?]", text.casefold()) if isinstance(text, str) else []
    words = [part for part in parts if part[0].isalpha()]
    unknown = sorted({word for word in words if word not in WORDS})
    if unknown:
        raise InputError(
            f"Drawn people cannot say {', '.join(unknown[:5])}: they know the words {', '.join(sorted(WORDS))}."
        )
    if not 0 < len(words) <= 100:
        raise InputError(f"A sentence of drawn people has 1 to 100 words, not {len(words)}.")
    sounds = [PAUSE]
    for part in parts:
        if part in WORDS:
            sounds += WORDS[part]
        elif sounds[-1] != PAUSE:
            sounds.append(PAUSE)
    return tuple(sounds if sounds[-1] == PAUSE else [*sounds, PAUSE])
