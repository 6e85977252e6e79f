// A colour for the wires of each of the pack's types.

import { app } from "../../scripts/app.js";

const COLOURS = {
    DICETALK: "#b39ddb",
    DICETALK_AUDIO: "#4dd0e1",
    DICETALK_PORTRAIT: "#ffb74d",
    DICETALK_EMOTION: "#f06292",
    DICETALK_WORDS: "#aed581",
};

// Vue nodes read these; a palette that has a colour for a type goes before them.
const style = document.createElement("style");
style.textContent = `:root { ${Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`).join(" ")} }`;
document.head.append(style);

app.registerExtension({
    name: "DiceTalk.Wires",
    setup() {
        for (const map of [app.canvas.default_connection_color_byType, LGraphCanvas.link_type_colors]) {
            for (const [type, colour] of Object.entries(COLOURS)) {
                // Each change of the palette sets the types that it does not know to "".
                let chosen = map[type];
                const colouring = { get: () => chosen || colour, set: (value) => (chosen = value) };
                Object.defineProperty(map, type, { ...colouring, enumerable: true, configurable: true });
            }
        }
    },
});
