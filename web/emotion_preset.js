// DICE-Talk Emotion without the fields that change nothing, and the lists of saved emotions kept up to date.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { NAMES } from "./emotion_look.js";
import { findWidget, isWired, nodesOf, watchWidgets } from "./node_editor.js";

const KIND = "DiceTalkEmotion";
const LOADER = "DiceTalkLoadEmotion";
const SAVER = "DiceTalkSaveEmotion";
let listed = null; // the saved emotions that the page's lists have

/** The eight have no spread, so a variation of them is the emotion itself: the fields for it are for saved ones. */
function showVariation(node) {
    const varies = isWired(node, "emotion") || !NAMES.includes(findWidget(node, "emotion").value);
    const fields = ["variation_strength", "variation_seed"].map((name) => findWidget(node, name));
    for (const widget of fields.flatMap((field) => [field, ...(field.linkedWidgets ?? [])])) {
        if (isWired(node, widget.name)) continue;
        widget.hidden = !varies;
        widget.options.hidden = !varies;
    }
    node.setDirtyCanvas(true, true);
}

/** After a run that may have saved an emotion: every list that lacks it gets it. */
async function refreshLists() {
    if (!nodesOf(SAVER).length) return;
    const answer = await api.fetchApi(`/object_info/${LOADER}`);
    if (!answer.ok) return;
    const now = names(((await answer.json())[LOADER] ?? {}).input);
    if (now !== listed) await app.refreshComboInNodes();
}

const names = (input) => JSON.stringify(input?.required?.name?.[1]?.options ?? []);

app.registerExtension({
    name: "DiceTalk.EmotionPreset",
    beforeRegisterNodeDef(nodeType, nodeData) {
        if (nodeData.name === LOADER) listed = names(nodeData.input);
    },
    refreshComboInNodes(defs) {
        listed = names(defs[LOADER]?.input);
    },
    setup() {
        api.addEventListener("execution_success", refreshLists);
    },
    nodeCreated(node) {
        if (node.comfyClass !== KIND) return;
        watchWidgets(node, ["emotion"], () => showVariation(node));
        showVariation(node);
    },
});
