// How emotions look in the editors. Colours are never alone: a name is always beside them.

// Those of the charts, in dicetalk/emotion/drawing.py; a test compares the two.
const COLOURS = {
    angry: "#d55e00",
    contempt: "#cc79a7",
    disgusted: "#009e73",
    fear: "#0072b2",
    happy: "#f0e442",
    neutral: "#cdcdcd",
    sad: "#56b4e9",
    surprised: "#e69f00",
};
const OTHER = "#96a5be"; // saved and wired emotions

export const NAMES = Object.keys(COLOURS);

/** The colour of an emotion's tree; of a mix, between those of its parts. */
export function colourOf(tree) {
    if (tree.kind === "named") return COLOURS[tree.name] ?? OTHER;
    return blend(tree.parts.map(([weight, part]) => [weight, colourOf(part)]));
}

/** The colour between some: [[weight, "#rrggbb"], ...]. */
export function blend(parts) {
    const total = parts.reduce((sum, [weight]) => sum + weight, 0) || 1;
    const channel = (at) =>
        parts.reduce((sum, [weight, colour]) => sum + (weight / total) * parseInt(colour.slice(at, at + 2), 16), 0);
    return "#" + [1, 3, 5].map((at) => Math.round(channel(at)).toString(16).padStart(2, "0")).join("");
}

/** The name of an emotion's tree as short as it goes: "happy", "sad + fear". */
export function shortName(tree) {
    return tree.kind === "named" ? tree.name : tree.parts.map(([, part]) => shortName(part)).join(" + ");
}
