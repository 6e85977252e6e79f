import pytest

from dicetalk.emotion.text import Mixed, Named, parse_text
from dicetalk.errors import InputError
from dicetalk.script.text import parse_script, plain_text, read_script


def texts(script):
    return [word.text for word in script.words]


def test_words_and_tags():
    script = parse_script("[happy] Hello there. [sad 0.7] I have to go! [(sad 0.7 + fear 0.3):1.2] Take care.")
    assert texts(script) == ["Hello", "there.", "I", "have", "to", "go!", "Take", "care."]
    assert [tag.place for tag in script.tags] == [0, 2, 6]
    assert [tag.emotion for tag in script.tags] == [
        Named("happy"),
        Named("sad", 0.7),
        Mixed(((0.7, Named("sad")), (0.3, Named("fear"))), intensity=1.2),
    ]


@pytest.mark.parametrize(
    ("tag", "emotion"),
    [
        ("[sad 0.7]", "sad:0.7"),
        ("[ sad   .5 ]", "sad:0.5"),
        ("[sad:1.3]", "sad:1.3"),
        ("[moments(sad + fear)]", "moments(sad + fear)"),
        ('["my smile" 0.5]', '"my smile":0.5'),
        ("[my smile]", '"my smile"'),
        ("[sad 70%]", "sad:0.7"),
        ("[sad + fear]", "(sad + fear)"),
        ("【sad：0.7】", "sad:0.7"),
        ("［sad］", "sad"),
    ],
)
def test_a_tag_is_an_emotion(tag, emotion):
    assert parse_script(f"{tag} Hello").tags[0].emotion == parse_text(emotion)


def test_punctuation_of_its_own_is_no_word():
    script = parse_script("— Well , I … “go” -- now !")
    assert texts(script) == ["Well,", "I…", "“go” --", "now!"]
    assert plain_text(script.words) == "Well, I… “go” -- now!"


def test_scripts_without_spaces():
    script = parse_script("[happy]你好。[sad]再见, ok?")
    assert texts(script) == ["你", "好。", "再", "见,", "ok?"]
    assert [tag.place for tag in script.tags] == [0, 2]
    assert plain_text(script.words[:2]) == "你好。"


def test_a_tag_before_another_has_no_words_and_one_at_the_end_is_kept():
    script = parse_script("[happy] [sad] Hello [neutral]")
    assert [(tag.place, tag.emotion.name) for tag in script.tags] == [(0, "sad"), (1, "neutral")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[happy Hello", ["character 1", "bracket"]),
        ("Hello] there", ["character 6", "bracket"]),
        ("Hi [hapy] you", ["tag 1", "[hapy]", "did you mean happy"]),
        ("[happy] Hi [sad 3] you", ["tag 2", "[sad 3]", "from 0 to 2"]),
        ("[] Hello", ["tag 1", "empty"]),
        ("[(sad)] Hi (Happy) you", ["character 12", "[Happy]", "square brackets"]),
        ("*joyful* Hello", ["character 1", "[joyful]"]),
        ("[0s happy; 2s sad] Hello", ["tag 1", "[happy]", "without times"]),
        ("[happy]", ["no words"]),
        ("", ["no words"]),
        ("x" * 200_001, ["200000"]),
        (3, ["must be text"]),
    ],
)
def test_what_is_wrong_is_named(text, words):
    with pytest.raises(InputError) as caught:
        parse_script(text, ["happy", "sad"])
    for word in words:
        assert word in str(caught.value)


def test_a_script_from_a_file(tmp_path):
    path = tmp_path / "script.txt"
    path.write_bytes("\ufeff[happy] Grüße\nan alle.".encode())
    assert texts(read_script(path)) == texts(read_script(f" {path} ")) == ["Grüße", "an", "alle."]
    path.write_bytes("Gr\xfc\xdfe".encode("latin-1"))
    with pytest.raises(InputError, match="script.txt is not UTF-8"):
        read_script(path)
    path.write_text("[hapy] Hello")
    with pytest.raises(InputError, match="script.txt: Script, tag 1"):
        read_script(path, ["happy"])
    with pytest.raises(InputError, match=r"nowhere\.txt cannot be read"):
        read_script("nowhere.txt")
