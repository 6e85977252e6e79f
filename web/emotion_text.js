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
const NUMBER = sticky("-?(?:[0-9]+(?:\\.[0-9]*)?|\\.[0-9]+)(?:[eE][+\\-]?[0-9]+)?");
const SECONDS = sticky(`${BLANK}*s(?![${WORD_CHARACTER}])`);
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

class Parser {
    constructor(text) {
        this.text = text;
        this.at = 0;
        this.depth = 0;
        this.skip();
    }

    fail(problem, at = this.at) {
        throw new TextError(this.text, at, problem);
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
        const value = Number(match[0]);
        if (!Number.isFinite(value) || !(low <= value && value <= high)) {
            const bounds = high === Infinity ? `${low} or more` : `from ${low} to ${high}`;
            this.fail(`the ${what} must be ${bounds}`, at);
        }
        return value;
    }

    whole() {
        if (BLANKS.test(this.text)) this.fail("it is empty; write an emotion such as happy or happy:1.3");
        const tree = this.look(NUMBER) ? this.timeline() : this.mood();
        if (this.at < this.text.length) {
            if (this.text[this.at] === ";") {
                this.fail("the emotions of a timeline need a time each, such as 0s neutral; 1.5s happy");
            }
            if (this.text[this.at] === "+" || this.look(NUMBER)) {
                this.fail("put a mix in parentheses, such as (sad 0.7 + fear 0.3)");
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
            if (!this.takeSign(";")) {
                if (this.at < this.text.length) {
                    this.fail("expected ; and the next time, or an easing (linear, smooth, step)");
                }
                break;
            }
            if (this.at === this.text.length) break;
        }
        return { kind: "timed", keys };
    }

    key() {
        if (!this.look(NUMBER)) this.fail("expected a time in seconds, such as 1.5s");
        const time = this.number("time", 0, LONGEST);
        if (!this.take(SECONDS)) this.fail("expected s, for seconds, after the time");
        const emotion = this.mood();
        const word = this.look(WORD);
        if (word && !EASINGS.includes(word[0])) {
            this.fail("expected ; and the next time, or an easing (linear, smooth, step)");
        }
        if (word) this.take(WORD);
        return { time, emotion, easing: word ? word[0] : "linear" };
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
        return this.takeSign(":") ? this.number("intensity", 0, MAX_INTENSITY) : 1;
    }

    mix(method, at) {
        this.depth += 1;
        if (this.depth > MAX_DEPTH) this.fail(`mixes are nested deeper than ${MAX_DEPTH}`);
        this.takeSign("(");
        const parts = [];
        for (;;) {
            const part = this.mood();
            parts.push([this.look(NUMBER) ? this.number("weight", 0, Infinity) : 1, part]);
            if (this.takeSign(")")) break;
            if (!this.takeSign("+")) this.fail("expected + or ) in the mix");
        }
        if (!parts.some(([weight]) => weight !== 0)) this.fail("the weights of a mix must not all be 0", at);
        this.depth -= 1;
        return { kind: "mixed", parts, method, intensity: this.intensity() };
    }
}
