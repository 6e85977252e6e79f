// How emotions look in the editors. Colours are never alone: a name is always beside them.

const COLOURS = {
    angry: "#e2504c",
    contempt: "#2fa39b",
    disgusted: "#7ea43a",
    fear: "#9163d4",
    happy: "#e8b31f",
    neutral: "#8d8f98",
    sad: "#4a86d9",
    surprised: "#ef8a3c",
};
const OTHER = "#b0799c"; // saved and wired emotions

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
