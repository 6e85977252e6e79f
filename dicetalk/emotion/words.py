"""The words that people have for the eight emotions."""

from .options import NAMES

# Forms of the names themselves, and the words for the same in the languages of the nodes.
FORMS = {
    "angry": "anger angrily furious wütend zorn 愤怒 生气 憤怒 生氣 怒り 분노 enojado enfado colère énervé "
    "raiva гнев злость",
    "contempt": "contemptuous scorn verachtung 轻蔑 鄙视 輕蔑 鄙視 軽蔑 경멸 desprecio mépris desprezo презрение",
    "disgusted": "disgust ekel 厌恶 厭惡 嫌悪 혐오 asco dégoût nojo отвращение",
    "fear": "fearful afraid scared frightened angst 恐惧 害怕 恐懼 恐れ 恐怖 공포 miedo peur medo страх",
    "happy": "happiness joy joyful happily glücklich freude 开心 高兴 快乐 開心 高興 快樂 嬉しい 喜び 행복 "
    "기쁨 feliz alegría heureux joie alegria радость счастье",
    "neutral": "neutrality 中性 中立 중립 neutre neutro нейтрально",
    "sad": "sadness sadly sorrow traurig trauer 悲伤 难过 伤心 悲傷 難過 傷心 悲しい 悲しみ 슬픔 triste "
    "tristeza tristesse грусть печаль",
    "surprised": "surprise suprise suprised astonished überrascht überraschung 惊讶 吃惊 驚訝 吃驚 驚き 놀람 "
    "sorprendido sorpresa surpris surpreso удивление",
}
# What comes near one of them. As labels are written in models trained on FER2013, AffectNet, RAF-DB, RAVDESS, CREMA-D,
# MEAD, IEMOCAP, TESS and SAVEE; without spaces, digits and signs.
NEAR = {
    "angry": "ang mad frustrated frustration fru annoyed rage",
    "contempt": "con",
    "disgusted": "dis revulsion",
    "fear": "fea anxious anxiety",
    "happy": "hap excited excitement exc amused amusement",
    "neutral": "neu calm calmness noemotion 平静 平靜",
    "sad": "unhappy depressed",
    "surprised": "sur pleasantsurprise pleasantsurprised ps",
}
NAME_OF_FORM = {form: name for name in NAMES for form in (name, *FORMS[name].split())}
NAME_OF_NEAR = {word: name for name in NAMES for word in NEAR[name].split()}


def known_name(word, names):
    """The one of `names` that a word means: itself, in other capitals, or as a form of one of the eight; else None."""
    if word in names:
        return word
    folded = word.casefold()
    same = [name for name in names if name.casefold() == folded]
    form = NAME_OF_FORM.get(folded)
    return same[0] if len(same) == 1 else form if form in names else None
