// The text form of an emotion, read and written exactly as dicetalk/emotion/text.py does, errors included; the tests
// compare the two. A tree is {kind: "named", name, intensity}, {kind: "mixed", parts: [[weight, tree]], method,
// intensity} or {kind: "timed", keys: [{time, emotion, easing}]}.

export const EASINGS = ["linear", "smooth", "step"];
export const METHODS = ["barycentre", "moments", "tokens"];
export const MAX_INTENSITY = 2;
export const LONGEST = 48 * 3600; // seconds
const MAX_LENGTH = 4096;
const MAX_DEPTH = 16;

// What Python's \w, \d and \s match in text.
const LETTER = "\\p{L}\\p{Nl}\\p{No}_";
const WORD_CHARACTER = `${LETTER}\\p{Nd}-`;
const BLANK = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";

const sticky = (pattern) => new RegExp(pattern, "uy");
const WORD = sticky(`[${LETTER}][${WORD_CHARACTER}]*`);
const WORDS = new RegExp(
    `^${BLANK}*([${LETTER}][${WORD_CHARACTER}]*(?: [${LETTER}][${WORD_CHARACTER}]*)+)${BLANK}*$`,
    "u",
);
const NUMBER = sticky("-?(?:[0-9]+(?:\\.[0-9]*|,[0-9]+)?|\\.[0-9]+)(?:[eE][+\\-]?[0-9]+)?");
const CLOCK = sticky(`(?:([0-9]+):)?([0-9]+):([0-9]+(?:[.,][0-9]*)?)(?:${BLANK}*s(?![${WORD_CHARACTER}]))?`);
const FRAMES = sticky("[:;][0-9]");
const SECONDS = sticky(`${BLANK}*(ms|[sS]|secs?|seconds?)(?![${WORD_CHARACTER}])`);
const PART = sticky(`[${LETTER}"(]`);
const QUOTED_PART = /("(?:[^"\\]|\\["\\])*")/u;
// Of a Chinese keyboard, and the quotes of word processors; each is one character, so that places stay.
const SIGNS = /[：；，（）＋％＝“”„‟«»「」『』‘’']/gu;
const PLAIN = { "：": ":", "；": ";", "，": ",", "（": "(", "）": ")", "＋": "+", "％": "%", "＝": "=" };
const QUOTED = sticky('"((?:[^"\\\\]|\\\\["\\\\])*)"');
const SPACE = sticky(`${BLANK}*`);
const PLAIN_WORD = new RegExp(`^[${LETTER}][${WORD_CHARACTER}]*$`, "u");
const BLANKS = new RegExp(`^${BLANK}*$`, "u");
const UNPRINTABLE = /(?! )[\p{C}\p{Z}]/u;

/** What is wrong with a text, and where: `position` counts characters (not UTF-16 units) from 0. */
export class TextError extends Error {
    constructor(text, at, problem) {
        const before = Array.from(text.slice(0, at)).length;
        const characters = Array.from(text.slice(at)).slice(0, 24);
        const printable = characters.map((character) => (UNPRINTABLE.test(character) ? " " : character)).join("");
        const rest = printable.split(" ").filter(Boolean).join(" ");
        super(`Emotion text, ${rest ? `at character ${before + 1}, "${rest}"` : "at the end"}: ${problem}.`);
        this.position = before;
    }
}

/** The tree of a text; throws TextError. */
export function parseText(text) {
    const length = Array.from(text).length;
    if (length > MAX_LENGTH) {
        const error = new TextError(text, 0, "");
        error.message = `The emotion's text is ${length} characters long; ${MAX_LENGTH} is the most.`;
        throw error;
    }
    return new Parser(text).whole();
}

/** The text of a tree, in its plainest spelling. */
export function formatText(tree) {
    if (tree.kind === "timed") {
        const easing = (key) => (key.easing === "linear" ? "" : ` ${key.easing}`);
        return tree.keys
            .map((key) => `${formatNumber(key.time)}s ${formatText(key.emotion)}${easing(key)}`)
            .join("; ");
    }
    let body;
    if (tree.kind === "named") {
        body = formatName(tree.name);
    } else {
        const parts = tree.parts.map(
            ([weight, part]) => formatText(part) + (weight === 1 ? "" : ` ${formatNumber(weight)}`),
        );
        body = `${tree.method === "barycentre" ? "" : tree.method}(${parts.join(" + ")})`;
    }
    return body + (tree.intensity === 1 ? "" : `:${formatNumber(tree.intensity)}`);
}

/** A name as the text form writes it: in quotes unless it is a plain word. */
export function formatName(name) {
    if (PLAIN_WORD.test(name) && !EASINGS.includes(name)) return name;
    return `"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

/** A number as Python's repr writes it, without a trailing ".0". */
export function formatNumber(value) {
    if (Object.is(value, -0)) return "-0";
    const [digits, exponent] = value.toExponential().split("e");
    if (exponent >= -4 && exponent < 16) return String(value);
    return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
}

/** The text with the usual signs, and as long; what is in straight quotes stays. */
function plain(text) {
    const usual = (part) => part.replace(SIGNS, (sign) => PLAIN[sign] ?? '"');
    return text.split(QUOTED_PART).map((part, number) => (number % 2 ? part : usual(part))).join("");
}

class Parser {
    constructor(text) {
        this.written = text;
        this.text = plain(text);
        this.at = 0;
        this.depth = 0;
        this.skip();
    }

    fail(problem, at = this.at) {
        throw new TextError(this.written, at, problem);
    }

    look(pattern, at = this.at) {
        pattern.lastIndex = at;
        return pattern.exec(this.text);
    }

    skip() {
        this.at += this.look(SPACE)[0].length;
    }

    take(pattern) {
        const match = this.look(pattern);
        if (match) {
            this.at += match[0].length;
            this.skip();
        }
        return match;
    }

    takeSign(sign) {
        const found = this.text.startsWith(sign, this.at);
        if (found) {
            this.at += sign.length;
            this.skip();
        }
        return found;
    }

    number(what, low, high) {
        const at = this.at;
        const match = this.take(NUMBER);
        if (!match) this.fail(`expected a number for the ${what}`);
        const value = Number(match[0].replace(",", ".")) / (this.takeSign("%") ? 100 : 1);
        this.check(what, value, low, high, at);
        return value;
    }

    check(what, value, low, high, at) {
        if (!Number.isFinite(value) || !(low <= value && value <= high)) {
            const bounds = high === Infinity ? `${low} or more` : `from ${low} to ${high}`;
            this.fail(`the ${what} must be ${bounds}`, at);
        }
    }

    whole() {
        if (BLANKS.test(this.text)) this.fail("it is empty; write an emotion such as happy or happy:1.3");
        const several = WORDS.exec(this.text);
        if (several) return { kind: "named", name: several[1], intensity: 1 };
        const tree = this.look(NUMBER) ? this.timeline() : this.emotion();
        const rest = this.text.slice(this.at);
        if (!BLANKS.test(rest.replace(/^[,;]/u, ""))) {
            if (rest[0] === ";") {
                this.fail("the emotions of a timeline need a time each, such as 0s neutral; 1.5s happy");
            }
            if (this.look(PART)) {
                this.fail("put + between the emotions of a mix, and a name of several words in quotes");
            }
            this.fail("nothing more was expected here");
        }
        return tree;
    }

    timeline() {
        const keys = [];
        for (;;) {
            const at = this.at;
            const key = this.key();
            if (keys.length && key.time <= keys.at(-1).time) this.fail("the times of a timeline must increase", at);
            keys.push(key);
            const separated = this.takeSign(";") || this.takeSign(",");
            if (this.at === this.text.length) break;
            if (!separated && !this.atTime()) {
                this.fail("expected ; and the next time, or an easing (linear, smooth, step)");
            }
        }
        return { kind: "timed", keys };
    }

    /** Whether a time with its unit is here. */
    atTime() {
        const number = this.look(NUMBER);
        return Boolean(this.look(CLOCK) || (number && this.look(SECONDS, this.at + number[0].length)));
    }

    time() {
        const at = this.at;
        const clock = this.take(CLOCK);
        let value;
        if (clock) {
            if (this.look(FRAMES)) this.fail("a time has no frames; write 1:02.5 or 62.5s", at);
            const [hours, minutes, seconds] = clock.slice(1).map((part) => Number((part ?? "0").replace(",", ".")));
            value = hours * 3600 + minutes * 60 + seconds;
        } else {
            const match = this.take(NUMBER);
            if (!match) this.fail("expected a time in seconds, such as 1.5s");
            if (this.text.startsWith("%", this.at)) {
                this.fail("write a share after its emotion, such as (sad 70% + fear 30%)", at);
            }
            const unit = this.take(SECONDS);
            if (!unit) this.fail("expected s, for seconds, after the time");
            value = Number(match[0].replace(",", ".")) / (unit[1] === "ms" ? 1000 : 1);
        }
        this.check("time", value, 0, LONGEST, at);
        return value;
    }

    key() {
        const time = this.time();
        this.takeSign(":");
        const emotion = this.emotion();
        const word = this.look(WORD);
        const easing = word ? word[0].toLowerCase() : "linear";
        if (!EASINGS.includes(easing)) {
            this.fail("expected ; and the next time, or an easing (linear, smooth, step)");
        }
        if (word) this.take(WORD);
        return { time, emotion, easing };
    }

    /** One emotion with its intensity, or a mix that may lack its parentheses. */
    emotion() {
        const at = this.at;
        const parts = this.parts();
        if (parts.length > 1) return this.mixed(parts, "barycentre", 1, at);
        const [{ weight, part, place }] = parts;
        if (weight === null) return part;
        if (part.intensity !== 1) this.fail("it has an intensity already", place);
        this.check("intensity", weight, 0, MAX_INTENSITY, place);
        return { ...part, intensity: weight };
    }

    /** [{weight or null, part, at, place of the weight}] with + or , between them. */
    parts() {
        const parts = [];
        let commas = false;
        for (;;) {
            const at = this.at;
            const part = this.mood();
            const place = this.at;
            const weighted = this.look(NUMBER) && !this.atTime();
            parts.push({ weight: weighted ? this.number("weight", 0, Infinity) : null, part, at, place });
            const next = this.at + 1;
            if (this.text[this.at] === "," && this.look(PART, next + this.look(SPACE, next)[0].length)) {
                this.takeSign(",");
                commas = true;
            } else if (!this.takeSign("+")) {
                break;
            }
        }
        const strong = commas && parts.find(({ part }) => part.intensity !== 1);
        if (strong) {
            this.fail("after : comes an intensity; write shares after a space, such as (sad 0.7 + fear 0.3)", strong.at);
        }
        return parts;
    }

    mixed(parts, method, intensity, at) {
        const weighted = parts.map(({ weight, part }) => [weight ?? 1, part]);
        if (!weighted.some(([weight]) => weight !== 0)) this.fail("the weights of a mix must not all be 0", at);
        return { kind: "mixed", parts: weighted, method, intensity };
    }

    mood() {
        const at = this.at;
        if (this.text.startsWith("(", at)) return this.mix("barycentre", at);
        const word = this.look(WORD);
        if (word) {
            const end = at + word[0].length;
            if (this.text.startsWith("(", end + this.look(SPACE, end)[0].length)) {
                if (!METHODS.includes(word[0])) this.fail(`the method of a mix must be one of ${METHODS.join(", ")}`);
                this.take(WORD);
                return this.mix(word[0], at);
            }
        }
        return { kind: "named", name: this.name(), intensity: this.intensity() };
    }

    name() {
        const at = this.at;
        if (!this.text.startsWith('"', at)) {
            const match = this.take(WORD);
            if (!match) this.fail("expected the name of an emotion");
            return match[0];
        }
        const match = this.take(QUOTED);
        if (!match) this.fail("the quotes are not closed");
        const name = match[1].replace(/\\(.)/gu, "$1");
        if (!name || UNPRINTABLE.test(name)) {
            this.fail("a name must not be empty and must not hold control characters", at);
        }
        return name;
    }

    intensity() {
        return this.takeSign(":") || this.takeSign("=") ? this.number("intensity", 0, MAX_INTENSITY) : 1;
    }

    mix(method, at) {
        this.depth += 1;
        if (this.depth > MAX_DEPTH) this.fail(`mixes are nested deeper than ${MAX_DEPTH}`);
        this.takeSign("(");
        const parts = this.parts();
        if (!this.takeSign(")")) this.fail("expected + or ) in the mix");
        this.depth -= 1;
        return this.mixed(parts, method, this.intensity(), at);
    }
}
