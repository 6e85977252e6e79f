// The sound that a timeline's video will speak: found along the graph's links, decoded by the browser.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const RATE = 8000; // enough for a picture, and light for an hour of sound
export const BARS_PER_SECOND = 100;
const KEPT = 8;
const decoded = new Map(); // address → promise of the loudness

/**
 * The speech beside which a DiceTalkEmotionTimeline's emotion is used.
 *
 * Returns {url, start, length} in seconds (length 0 is to the end), or {reason} when there is no file to draw.
 */
export function findSpeech(node) {
    const features = featuresOf(node);
    const inside = node.graph !== app.rootGraph;
    if (!features && inside) return { reason: "No audio meets the emotion in this subgraph; the axis is empty." };
    if (!features) return { reason: "No audio is wired to the sampler yet." };
    const slot = features.inputs.findIndex((input) => input.name === "audio");
    const loader = origin(features, slot);
    const file = loader?.widgets?.find((widget) => widget.name === "audio")?.value;
    if (!loader && inside && features.inputs[slot].link != null) {
        return { reason: "The audio comes from outside of this subgraph; the axis is empty." };
    }
    if (!loader) return { reason: "No audio is wired to DICE-Talk Audio Features yet." };
    if (typeof file !== "string" || !file) {
        return { reason: `The audio of ${loader.title} is not known before it runs; the axis is empty.` };
    }
    const [start, length] = ["start", "length"].map((name) => {
        const wired = features.inputs.some((input) => input.name === name && input.link != null);
        return wired ? NaN : Number(features.widgets.find((widget) => widget.name === name)?.value ?? 0);
    });
    if (Number.isNaN(start) || Number.isNaN(length)) {
        return { reason: "The start or length of the audio is not known before it runs; the axis is empty." };
    }
    return { url: address(file), start, length };
}

/** Promise of an array with the loudness (0 to 1) of each hundredth of a second. */
export function loudness(url) {
    if (!decoded.has(url)) {
        if (decoded.size >= KEPT) decoded.delete(decoded.keys().next().value);
        const promise = decode(url);
        promise.catch(() => decoded.delete(url));
        decoded.set(url, promise);
    }
    return decoded.get(url);
}

async function decode(url) {
    const answer = await api.fetchApi(url);
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await answer.arrayBuffer());
    const step = RATE / BARS_PER_SECOND;
    const bars = new Float32Array(Math.ceil(sound.length / step));
    for (let channel = 0; channel < sound.numberOfChannels; channel++) {
        sound.getChannelData(channel).forEach((value, at) => {
            const bar = Math.floor(at / step);
            bars[bar] = Math.max(bars[bar], Math.abs(value));
        });
    }
    return bars;
}

function address(file) {
    const [, path, type] = file.match(/^(.*?)(?: \[(input|output|temp)\])?$/s);
    const at = path.lastIndexOf("/");
    const place = { filename: path.slice(at + 1), subfolder: path.slice(0, Math.max(at, 0)), type: type ?? "input" };
    return `/view?${new URLSearchParams(place)}`;
}

/** The DiceTalkAudioFeatures that meets the node's emotion in a sampler or guider; else the graph's only one. */
function featuresOf(node) {
    const seen = new Set([node]);
    for (const each of seen) {
        const slot = each.inputs?.findIndex((input) => input.type === "DICETALK_AUDIO" && input.link != null) ?? -1;
        const features = slot >= 0 && origin(each, slot);
        if (features?.comfyClass === "DiceTalkAudioFeatures") return features;
        for (let output = 0; output < (each.outputs?.length ?? 0); output++) {
            for (const next of each.getOutputNodes(output) ?? []) seen.add(next);
        }
    }
    const all = (node.graph?.nodes ?? []).filter((each) => each.comfyClass === "DiceTalkAudioFeatures");
    return all.length === 1 ? all[0] : null;
}

/** The node that an input gets its value from, through reroutes. */
function origin(node, slot) {
    let found = node.getInputNode(slot);
    for (let steps = 0; found?.type === "Reroute" && steps < 100; steps++) found = found.getInputNode(0);
    return found;
}
