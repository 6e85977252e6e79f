// The wheel of DICE-Talk Emotion Wheel: a picture of the node's numbers that can be dragged. The direction from the
// centre is the mix of two neighbours on the rim, the distance is the intensity.

import { app } from "../../scripts/app.js";
import { blend, colourOf } from "./emotion_look.js";
import { formatText, MAX_INTENSITY } from "./emotion_text.js";
import { addEditor, drawing, element, findWidget, growTo, isWired, recordStep, setWidgets, watchWidgets } from "./node_editor.js";

const WIDTH = 352;
const HEIGHT = 276;
const RADIUS = 106;
const EDITOR_HEIGHT = 306;
const NODE_SIZE = [374, 540];
const SLICES = 24; // of colour between two neighbours; each reaches under the next
const SNAP_INTENSITY = 0.04;
const SNAP_TURN = 0.06; // of the way between two neighbours

const round = (value) => Math.round(value * 100) / 100;
const point = (turn, distance) => [distance * Math.sin(turn), -distance * Math.cos(turn)];
const full = 2 * Math.PI;

app.registerExtension({
    name: "DiceTalk.EmotionWheel",
    nodeCreated(node) {
        if (node.comfyClass === "DiceTalkEmotionWheel") new Wheel(node);
    },
});

class Wheel {
    constructor(node) {
        this.node = node;
        // The node's numbers come in the order of the rim.
        this.moods = node.widgets.map((widget) => widget.name).filter((name) => name !== "intensity");
        this.step = full / this.moods.length;
        this.handle = this.makeHandle();
        this.labels = this.moods.map((mood, place) => this.makeLabel(mood, place));
        this.svg = drawing(
            "svg",
            { viewBox: `${-WIDTH / 2} ${-HEIGHT / 2} ${WIDTH} ${HEIGHT}`, class: "dicetalk-wheel" },
            ...this.makeDisc(),
            ...this.labels,
            this.handle,
        );
        this.svg.addEventListener("pointerdown", (event) => this.startDrag(event));
        this.svg.addEventListener("pointermove", (event) => this.dragging && this.dragTo(event));
        for (const kind of ["pointerup", "pointercancel"]) this.svg.addEventListener(kind, () => this.endDrag());
        this.svg.addEventListener("mousedown", (event) => event.preventDefault()); // the handle keeps the focus
        this.caption = element("output", { class: "dicetalk-caption", title: "The same, written as text" });
        addEditor(node, "wheel", element("div", { class: "dicetalk-wheel-box" }, this.svg, this.caption), EDITOR_HEIGHT);
        watchWidgets(node, [...this.moods, "intensity"], () => this.show());
        growTo(node, ...NODE_SIZE);
        this.show();
    }

    makeDisc() {
        const slices = this.moods.length * SLICES;
        const colour = (place) => colourOf({ kind: "named", name: this.moods[place % this.moods.length] });
        const parts = [];
        for (let slice = 0; slice < slices; slice++) {
            const share = (slice % SLICES) / SLICES;
            const place = Math.floor(slice / SLICES);
            const [from, to] = [((slice - 0.5) / slices) * full, ((slice + 1.5) / slices) * full];
            const corners = [from, to].map((turn) => point(turn, RADIUS).join(" "));
            parts.push(
                drawing("path", {
                    d: `M0 0L${corners[0]}A${RADIUS} ${RADIUS} 0 0 1 ${corners[1]}Z`,
                    fill: blend([
                        [1 - share, colour(place)],
                        [share, colour(place + 1)],
                    ]),
                }),
            );
        }
        // Gradients are found by an id of the whole page.
        const id = `dicetalk-fade-${Math.random().toString(36).slice(2)}`;
        const stop = (offset, opacity) => drawing("stop", { offset, "stop-opacity": opacity, class: "dicetalk-fade" });
        const fade = drawing("radialGradient", { id }, stop(0, 1), stop(0.5, 0.55), stop(1, 0.05));
        const spokes = this.moods.map((_, place) => {
            const [x, y] = point(place * this.step, RADIUS);
            return drawing("line", { x2: x, y2: y, class: "dicetalk-spoke" });
        });
        return [
            ...parts,
            drawing("defs", {}, fade),
            drawing("circle", { r: RADIUS + 0.5, fill: `url(#${id})` }),
            ...spokes,
            drawing("circle", { r: RADIUS / MAX_INTENSITY, class: "dicetalk-ring" }),
            drawing("circle", { r: RADIUS, class: "dicetalk-rim" }),
            drawing("text", { y: -RADIUS / MAX_INTENSITY - 4, x: 4, class: "dicetalk-mark" }, "1"),
            drawing("text", { y: -RADIUS + 11, x: 4, class: "dicetalk-mark" }, "2"),
            drawing("text", { y: 14, class: "dicetalk-mark dicetalk-middle" }, "neutral"),
        ];
    }

    makeLabel(mood, place) {
        const [x, y] = point(place * this.step, RADIUS + 12);
        const anchor = Math.abs(x) < 8 ? "middle" : x > 0 ? "start" : "end";
        const name = drawing("tspan", { x }, mood);
        const share = drawing("tspan", { x, dy: 12, class: "dicetalk-share" });
        // Above the disc the two lines are on the rim, below they hang from it.
        const top = y < -RADIUS ? y - 8 : y > RADIUS * 0.8 ? y + 6 : y;
        return drawing("text", { x, y: top, "text-anchor": anchor, class: "dicetalk-label" }, name, share);
    }

    makeHandle() {
        const handle = drawing(
            "g",
            {
                tabindex: 0,
                role: "slider",
                class: "dicetalk-handle",
                "aria-label": "Emotion: left and right turn, up and down change the intensity, Home is neutral",
                "aria-valuemin": 0,
                "aria-valuemax": MAX_INTENSITY,
                onkeydown: (event) => this.press(event),
            },
            drawing("circle", { r: 13, class: "dicetalk-focus" }),
            drawing("circle", { r: 8, class: "dicetalk-dot" }),
        );
        return handle;
    }

    /** Whether the number of one of the widgets comes from another node, and the wheel cannot know it. */
    wired() {
        return [...this.moods, "intensity"].some((name) => isWired(this.node, name));
    }

    value(name) {
        return Number(findWidget(this.node, name).value) || 0;
    }

    /** Where the dot is: the direction of the weights' sum, and the intensity. */
    place() {
        const weights = this.moods.map((mood) => this.value(mood));
        const along = (part) => weights.reduce((sum, weight, place) => sum + weight * part(place * this.step), 0);
        const [x, y] = [along(Math.sin), along(Math.cos)];
        // Weights that cancel out have no direction of their own; then it is that of the largest.
        const none = Math.hypot(x, y) < 1e-6;
        const turn = none ? weights.indexOf(Math.max(...weights)) * this.step : Math.atan2(x, y);
        return { turn: (turn + full) % full, intensity: weights.some(Boolean) ? this.value("intensity") : 0 };
    }

    /** Set the numbers for a direction and an intensity. */
    move(turn, intensity, snap) {
        const wanted = round(Math.min(Math.max(intensity, 0), MAX_INTENSITY));
        const values = { intensity: snap && Math.abs(wanted - 1) < SNAP_INTENSITY ? 1 : wanted };
        if (wanted > 0) {
            const count = this.moods.length;
            const position = (((turn + full) % full) / this.step) % count;
            let place = Math.floor(position);
            let share = position - place;
            if (snap && share < SNAP_TURN) share = 0;
            if (snap && share > 1 - SNAP_TURN) [place, share] = [place + 1, 0];
            // Such weights that the sum of the two directions points where the dot is.
            const [first, second] = [Math.sin((1 - share) * this.step), Math.sin(share * this.step)];
            const weight = round(second / (first + second));
            for (const mood of this.moods) values[mood] = 0;
            values[this.moods[place % count]] = round(1 - weight);
            values[this.moods[(place + 1) % count]] = weight;
        }
        setWidgets(this.node, values);
        this.show();
    }

    show() {
        const { turn, intensity } = this.place();
        const weights = this.moods.map((mood) => this.value(mood));
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        const [x, y] = point(turn, (intensity / MAX_INTENSITY) * RADIUS);
        this.handle.setAttribute("transform", `translate(${x.toFixed(2)} ${y.toFixed(2)})`);
        this.labels.forEach((label, place) => {
            const share = total ? weights[place] / total : 0;
            label.classList.toggle("dicetalk-used", share > 0 && intensity > 0);
            label.lastChild.textContent = share > 0 && intensity > 0 ? `${Math.round(share * 100)} %` : "";
        });
        const parts = this.moods.flatMap((name, place) =>
            weights[place] ? [[weights[place], { kind: "named", name, intensity: 1 }]] : [],
        );
        const tree = this.tree(parts, intensity);
        const strength = Math.min(intensity, 1);
        const neutral = colourOf({ kind: "named", name: "neutral" });
        const colour = blend([[1 - strength, neutral], ...parts.map(([weight, part]) => [(strength * weight) / total, colourOf(part)])]);
        this.handle.lastChild.setAttribute("fill", colour);
        this.caption.textContent = this.wired() ? "Numbers come from other nodes; they are set there." : formatText(tree);
        this.handle.setAttribute("aria-valuenow", intensity);
        this.handle.setAttribute("aria-valuetext", `${formatText({ ...tree, intensity: 1 })}, intensity ${intensity}`);
    }

    tree(parts, intensity) {
        if (!parts.length || intensity === 0) return { kind: "named", name: "neutral", intensity: 1 };
        return parts.length === 1 ? { ...parts[0][1], intensity } : { kind: "mixed", parts, method: "barycentre", intensity };
    }

    startDrag(event) {
        if (event.button !== 0 || this.wired()) return;
        this.dragging = true;
        this.svg.setPointerCapture(event.pointerId);
        this.handle.focus({ preventScroll: true });
        this.dragTo(event);
    }

    dragTo(event) {
        const box = this.svg.getBoundingClientRect();
        const scale = Math.min(box.width / WIDTH, box.height / HEIGHT);
        const x = (event.clientX - box.left - box.width / 2) / scale;
        const y = (event.clientY - box.top - box.height / 2) / scale;
        this.move(Math.atan2(x, -y), (Math.hypot(x, y) / RADIUS) * MAX_INTENSITY, !event.shiftKey);
    }

    endDrag() {
        if (!this.dragging) return;
        this.dragging = false;
        recordStep();
    }

    press(event) {
        const { turn, intensity } = this.place();
        const moves = {
            ArrowRight: [turn + this.step / 10, intensity],
            ArrowLeft: [turn - this.step / 10, intensity],
            ArrowUp: [turn, intensity + 0.05],
            ArrowDown: [turn, intensity - 0.05],
            Home: [turn, 0],
        };
        if (!(event.key in moves) || this.wired() || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        this.move(...moves[event.key], false);
        recordStep();
    }
}
