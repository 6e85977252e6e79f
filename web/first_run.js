// The pack's example graphs run at once where no weights were downloaded yet: with the miniature, on a drawing.
//
// Graphs name the released weights and a photograph. Where the miniature alone is here, which knows drawn people only,
// an example opens with it, its drawing and its size instead. A graph that loads a picture or a sound of somebody's own
// stays as it is, and so does one that names a checkpoint which is here.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { findWidget, nodesOf, setWidgets } from "./node_editor.js";

const MARK = "dicetalk_template"; // in `extra` of the example graphs
const SIZE = { from: 512, to: 64 }; // pixels of a side: of the released weights, and of the miniature
const FILES = {
    "dicetalk_portrait.jpg": "dicetalk_drawn_portrait.png",
    "dicetalk_speech.flac": "dicetalk_drawn_speech.flac",
};
const OTHERS = ["dicetalk_two.jpg", "dicetalk_reference.mp4", ...Object.values(FILES)]; // they stay
const LOADED = ["image", "audio", "file"]; // widgets that name a file

/** The miniature's name where it is the only complete checkpoint, else nothing. */
async function onlyMiniature() {
    const answer = await api.fetchApi("/dicetalk/download");
    if (!answer.ok) return undefined;
    const { complete, miniatures } = await answer.json();
    return complete.every((name) => miniatures.includes(name)) ? miniatures[0] : undefined;
}

async function useMiniature() {
    const loaders = nodesOf("DiceTalkLoader");
    const sources = ["LoadImage", "LoadAudio", "LoadVideo"].flatMap(nodesOf);
    const files = sources.flatMap((node) => node.widgets.filter((widget) => LOADED.includes(widget.name)));
    const examples = files.every((widget) => widget.value in FILES || OTHERS.includes(widget.value));
    const pictures = sources.some((node) => node.comfyClass !== "LoadAudio");
    if (!loaders.length || !examples || !pictures) return;
    const miniature = await onlyMiniature();
    const missing = loaders.filter((node) => findWidget(node, "checkpoint").value !== miniature);
    if (!miniature || !missing.length) return;
    for (const node of missing) setWidgets(node, { checkpoint: miniature });
    for (const node of sources) {
        for (const { name, value } of node.widgets) if (value in FILES) setWidgets(node, { [name]: FILES[value] });
    }
    for (const node of [...app.rootGraph.nodes, ...["DiceTalkPortrait", "DiceTalkDialogue", "DiceTalkReact"].flatMap(nodesOf)]) {
        for (const name of ["size", "short_side"]) {
            if (node.widgets?.some((widget) => widget.name === name && widget.value === SIZE.from)) setWidgets(node, { [name]: SIZE.to });
        }
    }
    app.extensionManager.toast.add({
        severity: "info",
        summary: "DICE-Talk: the miniature takes the place of the weights",
        detail: "The released weights are not here yet. This example opens with the miniature, which knows drawn people only. "
            + "Download in Load DICE-Talk fetches the weights; then open the example again.",
        life: 20000,
    });
}

app.registerExtension({
    name: "DiceTalk.FirstRun",
    async afterConfigureGraph() {
        if (app.graph.extra?.[MARK]) await useMiniature();
    },
});
