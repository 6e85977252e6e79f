// The loader's Download button: says which files are missing and where they belong, and has the server fetch them.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addEditor, element, findWidget, growTo, isWired, nodesOf, recordStep, setWidgets, watchWidgets } from "./node_editor.js";

const ROUTE = "/dicetalk/download";
const SVD_PAGE = "https://huggingface.co/stabilityai/stable-video-diffusion-img2vid-xt";
const HEIGHT = 190;
const PAUSE = 500; // milliseconds between two questions while a download runs

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("./download.css", import.meta.url).href;
document.head.append(style);

const KIND = "DiceTalkLoader";
const panels = new WeakMap(); // node → its panel
let known = null; // what the server said last
let timer = null;

/** Ask the server (GET), or have it do something (POST), and show its answer in every loader node. */
async function ask(path = ROUTE, method = "GET") {
    const was = known;
    try {
        const request = { method, headers: { "Content-Type": "application/json" } };
        const answer = await api.fetchApi(path, method === "GET" ? { method } : { ...request, body: "{}" });
        if (answer.status === 409) return ask(); // another page was quicker
        if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `status ${answer.status}`);
        known = await answer.json();
    } catch (problem) {
        known = { ...(known ?? { complete: [], missing: [], miniatures: [], without_svd: [] }), state: "idle", error: `ComfyUI: ${problem.message}` };
    }
    const ended = was && known.state === "idle" && (was.state !== "idle" || known.missing.length < was.missing.length);
    if (ended) await app.refreshComboInNodes();
    const loaders = nodesOf(KIND);
    for (const node of loaders) panels.get(node)?.show(ended);
    clearTimeout(timer);
    if (known.state !== "idle" && loaders.length) timer = setTimeout(ask, PAUSE);
}

/** What is said and offered below the loader's inputs; there only while the chosen checkpoint is not complete. */
class Panel {
    constructor(node) {
        this.node = node;
        this.checkpoint = findWidget(node, "checkpoint");
        watchWidgets(node, ["checkpoint"], () => this.show());
    }

    show(ended = false) {
        if (!known) return;
        if (ended && known.complete.length && !known.complete.includes(this.checkpoint.value)) {
            this.checkpoint.value = known.complete.at(0);
        }
        const complete = known.complete.includes(this.checkpoint.value) || isWired(this.node, "checkpoint");
        this.others = complete ? [] : known.complete; // a workflow may name a checkpoint that is not here
        this.miniature = known.miniatures.includes(this.checkpoint.value); // the released one is still offered
        const lacks = this.others.length > 0 || ((!complete || this.miniature) && known.missing.length > 0);
        const taken = this.node.outputs.slice(2).some((output) => output.links?.length); // clip_vision or vae
        this.noSvd = taken && known.without_svd.includes(this.checkpoint.value);
        const needed = known.state !== "idle" || known.error || lacks || this.noSvd;
        if (needed && !this.widget) this.open();
        if (!needed && this.widget) this.close();
        if (needed) this.fill();
    }

    open() {
        this.content = element("div", { class: "dicetalk-download", style: `height: ${HEIGHT}px` }); // more is scrolled
        this.kind = null; // nothing is in it yet
        this.widget = addEditor(this.node, "download", this.content, HEIGHT);
        growTo(this.node, 340, this.node.computeSize()[1]);
        app.canvas.bringToFront(this.node); // it may reach over the node below
        this.node.setDirtyCanvas(true, true);
    }

    close() {
        this.node.removeWidget(this.widget);
        this.widget = null;
        this.node.setSize([this.node.size[0], this.node.computeSize()[1]]);
        this.node.setDirtyCanvas(true, true);
    }

    use(checkpoint) {
        setWidgets(this.node, { checkpoint });
        recordStep();
    }

    fill() {
        const running = known.state !== "idle";
        const kind = running ? known.state : "idle";
        if (this.kind !== kind || !running) this.content.replaceChildren(...(running ? progress() : this.offer()));
        this.kind = kind;
        if (running) update(this.content);
    }

    offer() {
        const parts = [];
        if (known.error) parts.push(element("p", { class: "dicetalk-problem", role: "alert" }, known.error));
        if (this.others.length) {
            const chosen = element("code", {}, String(this.checkpoint.value));
            const use = this.others.map((name) => element("button", { type: "button", onclick: () => this.use(name) }, `Use ${name}`));
            parts.push(element("p", {}, "The checkpoint ", chosen, " is not here, or not complete. ", ...use));
        }
        if (this.miniature || this.others.some((name) => known.miniatures.includes(name))) {
            parts.push(element("p", {}, "The miniature knows drawn people only."));
        }
        if (known.missing.length) {
            parts.push(element("p", {}, "Missing in ", element("code", {}, known.folder)), files(known.missing));
        }
        if (this.noSvd || (known.svd === false && known.missing.length)) {
            const link = element("a", { href: SVD_PAGE, target: "_blank", rel: "noopener" }, "from its page");
            const folder = element("code", {}, known.svd_folder);
            parts.push(element("p", {}, "Also needed: ", element("code", {}, "svd_xt.safetensors"), " in ", folder, ", ", link));
        }
        if (!known.missing.length && !known.error) return [element("div", { class: "dicetalk-said" }, ...parts)];
        const word = known.error ? "Download again" : "Download";
        const button = element("button", { type: "button", onclick: () => ask(ROUTE, "POST") }, word);
        const licence = element("small", {}, "Up to several GB. DICE-Talk's files: CC BY-NC-SA 4.0, no commercial use.");
        return [element("div", { class: "dicetalk-said" }, ...parts), element("div", { class: "dicetalk-row" }, button, licence)];
    }
}

function files(missing) {
    const folders = new Map();
    for (const path of missing) {
        const [folder, name] = path.split(/\/(?=[^/]*$)/);
        folders.set(folder, [...(folders.get(folder) ?? []), name]);
    }
    const lines = [...folders].map(([folder, names]) =>
        element("li", {}, element("code", {}, `${folder}/`), " ", names.length > 4 ? `${names.length} files` : names.join(", ")),
    );
    return element("ul", {}, ...lines);
}

function progress() {
    const stop = element("button", { type: "button", onclick: () => ask(`${ROUTE}/cancel`, "POST") }, "Cancel");
    return [
        element("div", { class: "dicetalk-said" }, element("p", { "aria-live": "polite" }), element("progress", { "aria-label": "Download" })),
        element("div", { class: "dicetalk-row" }, stop, element("small", {}, "What is fetched is kept: it can resume another time.")),
    ];
}

function update(content) {
    const { state, file, done, total } = known;
    const size = total ? `${readable(done, total)} of ${readable(total)}` : "";
    const texts = { asking: "Asking what is to be fetched …", stopping: "Stopping …", fetching: `${file}: ${size}` };
    content.querySelector("p").textContent = texts[state];
    const bar = content.querySelector("progress");
    if (total) Object.assign(bar, { max: total, value: done });
    else bar.removeAttribute("value");
    content.querySelector("button").disabled = state === "stopping";
}

function readable(bytes, scale = bytes) {
    for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
        if (scale >= size) return `${(bytes / size).toFixed(bytes < 100 * size ? 1 : 0)}${scale === bytes ? ` ${unit}` : ""}`;
    }
    return `${bytes} bytes`;
}

app.registerExtension({
    name: "DiceTalk.Download",
    nodeCreated(node) {
        if (node.comfyClass !== KIND) return;
        const panel = new Panel(node);
        panels.set(node, panel);
        if (known) queueMicrotask(() => panel.show());
        ask();
    },
});
