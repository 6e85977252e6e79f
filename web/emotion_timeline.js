// The editor of DICE-Talk Emotion Timeline: keyframes over the speech. The node's text is the one value; the editor
// reads it, and writes it again after each edit.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { NAMES, colourOf, shortName } from "./emotion_look.js";
import { EASINGS, LONGEST, MAX_INTENSITY, TextError, formatText, parseText } from "./emotion_text.js";
import {
    addEditor,
    drawing,
    element,
    findWidget,
    growTo,
    isWired,
    nodesOf,
    recordStep,
    setWidgets,
    watchWidgets,
} from "./node_editor.js";
import { BARS_PER_SECOND, findSpeech, loudness } from "./speech.js";

const EDITOR_HEIGHT = 268;
const NODE_SIZE = [520, 500];
const AS_WRITTEN = "as written";
const SHORTEST_AXIS = 4; // seconds
const GAP = 0.01; // seconds between two keys at least
const REACH = 14; // pixels around a key where it is taken hold of
const TOP = 0.12; // of the plot's height that stays free above intensity 2, and below 0
const TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800];
const COLUMNS = 360; // of the waveform

const round = (value) => Math.round(value * 100) / 100;
const within = (value, low, high) => Math.min(Math.max(value, low), high);
const isNeutral = (emotion) => emotion.kind === "named" && emotion.name === "neutral";
const heightOf = (key) => (isNeutral(key.emotion) ? 0 : key.emotion.intensity);
const KIND = "DiceTalkEmotionTimeline";
const editors = new WeakMap(); // node → its editor

app.registerExtension({
    name: "DiceTalk.EmotionTimeline",
    setup() {
        // Links, files and values anywhere in the graph may change what is drawn.
        api.addEventListener("graphChanged", () => nodesOf(KIND).forEach((node) => editors.get(node)?.refresh()));
    },
    nodeCreated(node) {
        if (node.comfyClass === KIND) editors.set(node, new Editor(node));
    },
});

class Editor {
    constructor(node) {
        this.node = node;
        this.keys = [];
        this.selected = 0;
        this.speech = {};
        this.build();
        addEditor(node, "editor", this.box, EDITOR_HEIGHT);
        growTo(node, ...NODE_SIZE);
        watchWidgets(node, ["timeline", "easing"], () => this.refresh());
        this.watchRuns();
        this.refresh();
    }

    /** After a run: words to show, and a wired text, which stays to be edited once it is no longer wired. */
    watchRuns() {
        const before = this.node.onExecuted;
        this.node.onExecuted = (output) => {
            before?.call(this.node, output);
            this.words = (output?.dicetalk_words ?? []).map(([text, start, end]) => ({ text, start, end }));
            const [text] = output?.dicetalk_timeline ?? [];
            if (isWired(this.node, "timeline") && text !== undefined && text !== this.known) {
                setWidgets(this.node, { timeline: text });
            }
            this.draw();
        };
    }

    // What is on the screen

    build() {
        const button = (label, title, press) =>
            element("button", { type: "button", title, "aria-label": title, onclick: press }, label);
        this.buttons = {
            add: button("+ Add", "Add an emotion after the selected one", () => this.addAfterSelected()),
            remove: button("Delete", "Delete the selected emotion", () => this.remove()),
            undo: button("↶", "Undo in the timeline", () => this.undo()),
            redo: button("↷", "Redo in the timeline", () => this.redo()),
        };
        this.bar = element(
            "div",
            { class: "dicetalk-bar" },
            ...Object.values(this.buttons),
            element("span", { class: "dicetalk-hint" }, "Double-click to add, drag to move"),
        );
        this.plot = drawing("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
        this.blocks = element("div", { class: "dicetalk-blocks", "aria-hidden": "true" });
        this.ticks = element("div", { class: "dicetalk-ticks", "aria-hidden": "true" });
        this.handles = element("div", { class: "dicetalk-keys" });
        this.note = element("div", { class: "dicetalk-note" });
        this.spoken = element("div", { class: "dicetalk-words" });
        this.area = element("div", { class: "dicetalk-area" }, this.plot, this.spoken, this.note, this.handles);
        this.lane = element(
            "div",
            {
                class: "dicetalk-lane",
                role: "group",
                "aria-label": "Emotions in time",
                onpointerdown: (event) => this.startDrag(event),
                onpointermove: (event) => this.dragTo(event),
                onpointerup: () => this.endDrag(),
                onpointercancel: () => this.endDrag(),
                onmousedown: (event) => event.preventDefault(), // the key that is dragged keeps the focus
                ondblclick: (event) => this.addAt(event),
            },
            this.blocks,
            this.area,
            this.ticks,
        );
        this.fields = this.buildFields();
        this.status = element("div", { class: "dicetalk-status", role: "status" });
        const form = element("div", { class: "dicetalk-fields" }, ...Object.values(this.fields).map(({ label }) => label));
        this.box = element("div", { class: "dicetalk-timeline" }, this.bar, this.lane, form, this.status);
    }

    buildFields() {
        const field = (title, input) => ({ input, label: element("label", {}, element("span", {}, title), input) });
        const number = (step, set) =>
            element("input", { type: "number", min: 0, step, onchange: (event) => set(event.target.valueAsNumber) });
        const choice = (set) => element("select", { onchange: (event) => set(event.target.value) });
        const fields = {
            time: field("Time (s)", number(0.1, (value) => this.setTime(value))),
            emotion: field("Emotion", choice((value) => this.setEmotion(value))),
            intensity: field("Intensity", number(0.05, (value) => this.setIntensity(value))),
            easing: field("Easing", choice((value) => this.change({ easing: value }))),
        };
        fields.time.input.max = LONGEST;
        fields.intensity.input.max = MAX_INTENSITY;
        fields.easing.input.replaceChildren(...EASINGS.map((easing) => new Option(easing)));
        return fields;
    }

    // The text

    get text() {
        return String(findWidget(this.node, "timeline").value ?? "");
    }

    /** The easing that counts for all keys, or null. */
    get easing() {
        const easing = findWidget(this.node, "easing").value;
        return isWired(this.node, "easing") || !EASINGS.includes(easing) ? null : easing;
    }

    /** Read what may have changed elsewhere. */
    refresh() {
        if (this.text !== this.known) {
            // The editor's own steps end where somebody else wrote; those are in the frontend's undo.
            this.past = [];
            this.future = [];
            this.read();
        }
        this.readSpeech();
        // Not more often than needed, as it would overwrite a number that is being typed.
        if (this.drawn !== this.state()) this.draw();
    }

    /** All of the node that is drawn, but the speech. */
    state() {
        const wires = [isWired(this.node, "timeline"), isWired(this.node, "words"), wiredNames(this.node)];
        return [this.text, this.easing, ...wires].join("\n");
    }

    read() {
        this.known = this.text;
        try {
            const tree = parseText(this.known);
            this.error = null;
            this.keys = tree.kind === "timed" ? tree.keys : [{ time: 0, emotion: tree, easing: "linear" }];
            this.selected = within(this.selected, 0, this.keys.length - 1);
        } catch (error) {
            if (!(error instanceof TextError)) throw error;
            this.error = error;
        }
    }

    /** Show these keys and write them as the node's text. */
    write(keys) {
        const selected = keys[this.selected];
        this.keys = keys.toSorted((a, b) => a.time - b.time);
        this.selected = Math.max(this.keys.indexOf(selected), 0);
        const text = formatText({ kind: "timed", keys: this.keys });
        if (text !== this.known) {
            this.known = text;
            setWidgets(this.node, { timeline: text });
        }
        this.draw();
    }

    /** An edit that can be undone: one step here, and one of the frontend's. */
    commit(keys, before = this.known) {
        this.write(keys);
        if (this.known === before) return;
        this.past.push(before);
        this.future = [];
        recordStep();
        this.draw();
    }

    undo() {
        this.restore(this.past, this.future);
    }

    redo() {
        this.restore(this.future, this.past);
    }

    restore(from, to) {
        if (!from.length) return;
        to.push(this.known);
        setWidgets(this.node, { timeline: (this.known = from.pop()) });
        this.read();
        this.draw();
        recordStep();
    }

    // Edits

    get locked() {
        return Boolean(this.error) || isWired(this.node, "timeline");
    }

    change(changes) {
        if (this.locked) return;
        this.commit(this.keys.map((key, place) => (place === this.selected ? { ...key, ...changes } : key)));
    }

    setTime(time) {
        const taken = this.keys.some((key, place) => place !== this.selected && key.time === round(time));
        if (time >= 0 && time <= LONGEST && !taken) return this.moveSelected(round(time));
        this.draw();
        if (time > LONGEST) this.status.textContent = `A timeline lasts ${LONGEST} s at most.`;
        if (taken) this.status.textContent = `There is an emotion at ${round(time)} s already.`;
    }

    moveSelected(time) {
        const keys = this.keys.map((key, place) => (place === this.selected ? { ...key, time } : key));
        this.commit(keys);
    }

    setIntensity(value) {
        const { emotion } = this.keys[this.selected];
        if (!Number.isFinite(value) || isNeutral(emotion)) return this.draw();
        this.change({ emotion: { ...emotion, intensity: round(within(value, 0, MAX_INTENSITY)) } });
    }

    setEmotion(name) {
        const { intensity } = this.keys[this.selected].emotion;
        this.change({ emotion: { kind: "named", name, intensity: name === "neutral" ? 1 : intensity } });
    }

    add(time, intensity) {
        if (this.locked || time > LONGEST || this.keys.some((key) => Math.abs(key.time - time) < GAP)) return;
        const before = this.keys.findLast((key) => key.time < time) ?? this.keys[0];
        const like = isNeutral(before.emotion) ? { kind: "named", name: "happy", intensity: 1 } : before.emotion;
        const key = { time, emotion: { ...like, intensity: intensity ?? like.intensity }, easing: "linear" };
        this.selected = this.keys.length;
        this.commit([...this.keys, key]);
        this.focusKey();
    }

    addAfterSelected() {
        const { time } = this.keys[this.selected];
        const next = this.keys[this.selected + 1]?.time;
        this.add(round(next === undefined ? time + 1 : (time + next) / 2));
    }

    addAt(event) {
        if (this.keyAt(event) !== null || event.target.closest(".dicetalk-ticks")) return;
        const { time, intensity } = this.pointed(event);
        this.add(time, Math.max(intensity, 0.05));
    }

    remove() {
        if (this.locked || this.keys.length < 2) return;
        const keys = this.keys.filter((_, place) => place !== this.selected);
        const focused = this.handles.contains(document.activeElement);
        this.selected = Math.min(this.selected, keys.length - 1);
        this.commit(keys);
        if (focused) this.focusKey();
    }

    select(place) {
        this.selected = place;
        this.draw();
    }

    focusKey() {
        this.handles.children[this.selected]?.focus({ preventScroll: true });
    }

    // Mouse, pen and finger

    /** Time and intensity under the pointer. */
    pointed(event) {
        const box = this.area.getBoundingClientRect();
        const share = within((event.clientX - box.left) / box.width, 0, 1);
        const height = (1 - (event.clientY - box.top) / box.height - TOP) / (1 - 2 * TOP);
        const steps = Math.round(within(height, 0, 1) * MAX_INTENSITY * 20);
        return { time: round(share * this.axis), intensity: steps / 20 };
    }

    /** The place of the key under the pointer, or null. In the row of names, each reaches up to the next. */
    keyAt(event) {
        const box = this.area.getBoundingClientRect();
        const scale = box.width / (this.area.offsetWidth || 1);
        if (event.clientY < box.top) {
            const place = this.keys.findLastIndex((key) => key.time <= this.pointed(event).time);
            return place < 0 ? null : place;
        }
        const distances = this.keys.map((key) => {
            const x = box.left + (key.time / this.axis) * box.width;
            const y = box.top + this.level(heightOf(key)) * box.height;
            return Math.hypot(event.clientX - x, event.clientY - y) / scale;
        });
        const place = distances.indexOf(Math.min(...distances));
        return distances[place] <= REACH ? place : null;
    }

    startDrag(event) {
        if (event.button !== 0 || this.locked) return;
        const place = this.keyAt(event);
        if (place === null) return;
        this.select(place);
        this.focusKey();
        const from = this.pointed(event);
        this.drag = { from, key: this.keys[place], before: this.known, inNames: event.target.closest(".dicetalk-blocks") };
        this.lane.setPointerCapture(event.pointerId);
    }

    dragTo(event) {
        if (!this.drag) {
            this.lane.classList.toggle("dicetalk-hold", !this.locked && this.keyAt(event) !== null);
            return;
        }
        const { from, key, inNames } = this.drag;
        const to = this.pointed(event);
        if (!this.drag.moved && to.time === from.time && to.intensity === from.intensity) return;
        this.drag.moved = true;
        const { emotion } = key;
        const intensity = round(within(emotion.intensity + to.intensity - from.intensity, 0, MAX_INTENSITY));
        const moved = {
            ...key,
            time: this.between(round(key.time + to.time - from.time)),
            emotion: inNames || isNeutral(emotion) ? emotion : { ...emotion, intensity },
        };
        this.write(this.keys.map((each, place) => (place === this.selected ? moved : each)));
    }

    endDrag() {
        if (!this.drag) return;
        const { before, moved } = this.drag;
        this.drag = null;
        if (moved) this.commit(this.keys, before);
    }

    /** The nearest time at which the selected key stays between its neighbours; its own where there is no other. */
    between(time) {
        const low = this.keys[this.selected - 1]?.time ?? -GAP;
        const high = this.keys[this.selected + 1]?.time ?? Math.min(this.axis, LONGEST) + GAP;
        if (high - low < 2 * GAP) return this.keys[this.selected].time;
        return round(within(time, low + GAP, high - GAP));
    }

    // Keyboard

    press(event, place) {
        const key = this.keys[place];
        const control = event.ctrlKey || event.metaKey;
        if (control && !event.altKey && ["z", "y"].includes(event.key.toLowerCase())) {
            event.preventDefault();
            const forward = event.key.toLowerCase() === "y" || event.shiftKey;
            if (!(forward ? this.future : this.past).length) {
                // Nothing of the editor's own: what the frontend has.
                app.extensionManager.command.execute(forward ? "Comfy.Redo" : "Comfy.Undo");
            } else if (forward) this.redo();
            else this.undo();
            return this.focusKey();
        }
        if (control || event.altKey) return;
        const fine = event.shiftKey ? 0.1 : 1;
        const actions = {
            ArrowLeft: () => this.moveSelected(this.between(key.time - 0.1 * fine)),
            ArrowRight: () => this.moveSelected(this.between(key.time + 0.1 * fine)),
            ArrowUp: () => this.setIntensity(key.emotion.intensity + 0.1 * fine),
            ArrowDown: () => this.setIntensity(key.emotion.intensity - 0.1 * fine),
            Delete: () => this.remove(),
            Backspace: () => this.remove(),
            Enter: () => this.fields.emotion.input.focus(),
            Home: () => this.select(0),
            End: () => this.select(this.keys.length - 1),
            PageUp: () => {},
            PageDown: () => {},
        };
        if (!(event.key in actions)) return;
        event.preventDefault();
        if (this.locked) return;
        actions[event.key]();
        if (event.key !== "Enter") this.focusKey();
    }

    // Speech

    async readSpeech() {
        const found = this.node.graph ? findSpeech(this.node) : {};
        const same = ["url", "start", "length", "reason"].every((name) => found[name] === this.speech[name]);
        if (same) return;
        this.speech = found;
        this.bars = null;
        if (!found.url) return this.draw();
        try {
            const bars = await loudness(found.url);
            if (this.speech !== found) return;
            const from = Math.round(found.start * BARS_PER_SECOND);
            const to = found.length > 0 ? from + Math.round(found.length * BARS_PER_SECOND) : bars.length;
            this.bars = bars.subarray(from, to);
        } catch (error) {
            if (this.speech !== found) return;
            this.speech.note = `The audio could not be drawn: ${error.message}`;
        }
        this.draw();
    }

    // Drawing

    /** Where an intensity is, from 0 at the plot's top to 1. */
    level(intensity) {
        return 1 - TOP - (intensity / MAX_INTENSITY) * (1 - 2 * TOP);
    }

    draw() {
        this.drawn = this.state();
        if (!this.drag) this.axis = this.axisLength();
        const wired = isWired(this.node, "timeline");
        this.box.classList.toggle("dicetalk-locked", this.locked);
        this.drawPlot();
        this.drawBlocks();
        this.drawWords();
        this.drawTicks();
        this.drawKeys();
        this.drawFields();
        this.note.textContent = this.bars ? "" : (this.speech.note ?? this.speech.reason ?? "");
        if (wired) this.status.textContent = "The text comes from another node; it is edited there.";
        else if (this.error) this.status.replaceChildren(...this.errorMarks());
        else this.status.textContent = this.easing ? `The node's easing, ${this.easing}, counts for all emotions.` : "";
    }

    axisLength() {
        const spoken = this.bars ? this.bars.length / BARS_PER_SECOND : 0;
        const last = this.keys.at(-1)?.time ?? 0;
        if (spoken && last <= spoken) return Math.max(spoken, 0.1);
        return Math.max(spoken, last * 1.15, SHORTEST_AXIS);
    }

    drawPlot() {
        const x = (time) => round((time / this.axis) * 1000);
        const y = (intensity) => round(this.level(intensity) * 100);
        const lines = [0, 1, 2].map((value) => `M0 ${y(value)}H1000`).join("");
        const parts = [drawing("path", { class: "dicetalk-wave", d: this.wave() })];
        parts.push(drawing("path", { class: "dicetalk-grid", d: lines }));
        this.keys.forEach((key, place) => {
            const next = this.keys[place + 1];
            const [left, level] = [place === 0 ? 0 : x(key.time), y(heightOf(key))];
            const start = `M${left} ${level}H${x(key.time)}`;
            const line = next ? start + this.curve(x(key.time), level, x(next.time), y(heightOf(next)), this.easing ?? next.easing) : `${start}H1000`;
            const [from, to] = [colourOf(key.emotion), next ? colourOf(next.emotion) : colourOf(key.emotion)];
            const id = `${this.gradients()}-${place}`;
            const held = next && (this.easing ?? next.easing) === "step";
            const stops = [[0, from], [1, held ? from : to]];
            const gradient = drawing(
                "linearGradient",
                { id, gradientUnits: "userSpaceOnUse", x1: x(key.time), x2: next ? x(next.time) : 1000 },
                ...stops.map(([offset, colour]) => drawing("stop", { offset, "stop-color": colour })),
            );
            const fill = drawing("path", { d: `${line}V${y(0)}H${left}Z`, fill: `url(#${id})`, class: "dicetalk-fill" });
            const stroke = drawing("path", { d: line, stroke: `url(#${id})`, class: "dicetalk-line" });
            parts.push(drawing("defs", {}, gradient), fill, stroke);
        });
        this.plot.replaceChildren(...parts);
    }

    gradients() {
        this.id ??= `dicetalk-${Math.random().toString(36).slice(2)}`; // found by an id of the whole page
        return this.id;
    }

    curve(x1, y1, x2, y2, easing) {
        if (easing === "step") return `H${x2}V${y2}`;
        if (easing === "linear") return `L${x2} ${y2}`;
        const third = (x2 - x1) / 3; // a cubic with these two points is 3t² - 2t³
        return `C${x1 + third} ${y1} ${x2 - third} ${y2} ${x2} ${y2}`;
    }

    wave() {
        if (!this.bars) return "M0 50H1000";
        const loudest = this.bars.reduce((most, value) => Math.max(most, value), 0.02);
        const width = 1000 / COLUMNS;
        const perColumn = (this.axis * BARS_PER_SECOND) / COLUMNS;
        let path = "";
        for (let column = 0; column < COLUMNS; column++) {
            const from = Math.floor(column * perColumn);
            if (from >= this.bars.length) break;
            const bars = this.bars.subarray(from, Math.max(from + 1, Math.floor((column + 1) * perColumn)));
            const half = Math.max((Math.max(...bars) / loudest) * 44, 0.4);
            path += `M${round(column * width)} ${round(50 - half)}h${round(width * 0.7)}v${round(2 * half)}h${round(-width * 0.7)}z`;
        }
        return path;
    }

    drawBlocks() {
        const blocks = this.keys.map((key, place) => {
            const end = this.keys[place + 1]?.time ?? this.axis;
            const block = element("span", { title: formatText(key.emotion) }, shortName(key.emotion));
            block.style.left = `${(key.time / this.axis) * 100}%`;
            block.style.width = `${((end - key.time) / this.axis) * 100}%`;
            block.style.setProperty("--emotion", colourOf(key.emotion));
            block.classList.toggle("dicetalk-selected", place === this.selected);
            return block;
        });
        this.blocks.replaceChildren(...blocks);
    }

    /** The words of the last run, each at its time, as long as they are wired. */
    drawWords() {
        const words = isWired(this.node, "words") ? (this.words ?? []) : [];
        const spans = words
            .filter(({ start }) => start < this.axis)
            .map(({ text, start, end }) => {
                const span = element("span", { title: `${text} · ${round(start)} to ${round(end)} s` }, text);
                span.style.left = `${(start / this.axis) * 100}%`;
                span.style.width = `${((Math.min(end, this.axis) - start) / this.axis) * 100}%`;
                return span;
            });
        this.spoken.replaceChildren(...spans);
    }

    drawTicks() {
        const step = TICKS.find((each) => this.axis / each <= 9) ?? this.axis / 8;
        const ticks = [];
        for (let count = 0; count * step < this.axis * 0.97; count++) {
            const tick = element("span", {}, clock(count * step));
            tick.style.left = `${((count * step) / this.axis) * 100}%`;
            ticks.push(tick);
        }
        this.ticks.replaceChildren(...ticks);
    }

    drawKeys() {
        while (this.handles.children.length > this.keys.length) this.handles.lastChild.remove();
        while (this.handles.children.length < this.keys.length) this.handles.append(this.makeKey());
        [...this.handles.children].forEach((handle, place) => {
            const key = this.keys[place];
            const easing = this.easing ?? key.easing;
            const reached = place ? `, reached ${easing}` : "";
            handle.max = this.axis;
            handle.value = key.time;
            handle.disabled = this.locked;
            handle.setAttribute("aria-label", `Emotion ${place + 1} of ${this.keys.length}`);
            handle.setAttribute("aria-valuetext", `${formatText(key.emotion)} at ${key.time} s${reached}`);
            handle.classList.toggle("dicetalk-selected", place === this.selected);
            handle.style.left = `${(key.time / this.axis) * 100}%`;
            handle.style.top = `${this.level(heightOf(key)) * 100}%`;
            handle.style.setProperty("--emotion", colourOf(key.emotion));
        });
    }

    // A range input, so that the keyboard, screen readers and the frontend (which leaves undo to inputs) know it.
    makeKey() {
        const place = () => [...this.handles.children].indexOf(handle);
        const handle = element("input", {
            type: "range",
            min: 0,
            step: "any",
            class: "dicetalk-key",
            onkeydown: (event) => this.press(event, place()),
            onfocus: () => place() !== this.selected && this.select(place()),
            oninput: () => this.moveSelected(this.between(handle.valueAsNumber)),
        });
        return handle;
    }

    drawFields() {
        const key = this.keys[this.selected];
        const { time, emotion, intensity, easing } = this.fields;
        for (const { input } of Object.values(this.fields)) input.disabled = this.locked || !key;
        this.buttons.add.disabled = this.locked;
        this.buttons.remove.disabled = this.locked || this.keys.length < 2;
        this.buttons.undo.disabled = !this.past?.length;
        this.buttons.redo.disabled = !this.future?.length;
        if (!key) return;
        time.input.value = key.time;
        intensity.input.value = key.emotion.intensity;
        intensity.input.disabled ||= isNeutral(key.emotion);
        easing.input.value = this.easing ?? key.easing;
        easing.input.disabled ||= Boolean(this.easing) || this.selected === 0;
        const names = [...new Set([...NAMES, ...wiredNames(this.node), ...savedNames()])];
        const { kind, name } = key.emotion;
        if (kind === "named" && !names.includes(name)) names.push(name);
        const options = names.map((each) => new Option(each, each, false, kind === "named" && each === name));
        // A mix is written in the text; here it can be kept or replaced.
        if (kind === "mixed") {
            const mix = new Option(formatText({ ...key.emotion, intensity: 1 }), "", false, true);
            mix.disabled = true;
            options.unshift(mix);
        }
        emotion.input.replaceChildren(...options);
    }

    /** The error, and the place in the text that it means. */
    errorMarks() {
        const characters = Array.from(this.known);
        const at = this.error.position;
        const mark = element("mark", {}, characters[at]?.trim() ? characters[at] : "␣");
        const piece = element(
            "code",
            {},
            (at > 16 ? "…" : "") + characters.slice(Math.max(at - 16, 0), at).join(""),
            mark,
            characters.slice(at + 1, at + 24).join("") + (at + 24 < characters.length ? "…" : ""),
        );
        return [piece, element("span", {}, this.error.message.replace(/^Emotion text, /, ""))];
    }
}

/** Seconds as 2 s, or as 1:05 from a minute on. */
function clock(seconds) {
    if (seconds < 60) return `${round(seconds)} s`;
    return `${Math.floor(seconds / 60)}:${String(Math.round(seconds % 60)).padStart(2, "0")}`;
}

/** The wired emotions, by the names that the text calls them. */
function wiredNames(node) {
    return node.inputs
        .filter((input) => input.type === "DICETALK_EMOTION" && input.link != null)
        .map((input) => input.name.split(".").at(-1));
}

/** The emotions that DICE-Talk Emotion offers, saved ones among them. */
function savedNames() {
    const input = LiteGraph.registered_node_types.DiceTalkEmotion?.nodeData?.input?.required?.emotion;
    return Array.isArray(input?.[0]) ? input[0] : (input?.[1]?.options ?? []);
}
