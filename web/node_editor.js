// What the editors inside nodes share: their place in a node on both of the frontend's renderers, and how what they do
// becomes the node's ordinary widget values and one step of the frontend's undo.

import { app } from "../../scripts/app.js";

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("./editors.css", import.meta.url).href;
document.head.append(style);

/** An element with attributes (`on…` are listeners) and children. */
export function element(tag, attributes = {}, ...children) {
    return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function drawing(tag, attributes = {}, ...children) {
    return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
        if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
        else if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
}

/** Put an editor below a node's widgets. It stores nothing itself. */
export function addEditor(node, name, content, height) {
    // A wrapper, as the frontend sets the size of what it is given.
    const frame = element("div", { class: "dicetalk-editor", style: `min-height: ${height}px` }, content);
    const widget = node.addDOMWidget(name, "dicetalk_editor", frame, { serialize: false, getMinHeight: () => height });
    widget.serialize = false;
    // ComfyUI's side panel draws the widgets of a selected node and leaves its own width in them, which the frontend
    // would then take for the editor's in the node. The editor is as wide as its node, whatever is written there.
    Object.defineProperty(widget, "width", { configurable: true, get() {}, set() {} });
    // The frontend has shortcuts of single letters, and opens its node search on a double click.
    frame.addEventListener("keydown", (event) => event.ctrlKey || event.metaKey || event.stopPropagation());
    frame.addEventListener("dblclick", (event) => event.stopPropagation());
    frame.addEventListener("wheel", (event) => {
        if (LiteGraph.vueNodesMode) return; // there the node does it
        event.preventDefault();
        app.canvas.processMouseWheel(event);
    });
    const panning = { pointerdown: "processMouseDown", pointermove: "processMouseMove", pointerup: "processMouseUp" };
    for (const [kind, process] of Object.entries(panning)) {
        frame.addEventListener(kind, (event) => {
            const middle = event.button === 1 || (event.button === -1 && event.buttons & 4);
            if (middle && !LiteGraph.vueNodesMode) app.canvas[process](event);
        });
    }
    return widget;
}

/** The nodes of a type in the open workflow, those in its subgraphs among them. */
export function nodesOf(kind) {
    // Asked each time: nodes in a subgraph are not notified when their graph makes room for another.
    const graphs = [app.rootGraph, ...app.rootGraph.subgraphs.values()];
    return graphs.flatMap((graph) => graph.nodes.filter((node) => node.comfyClass === kind));
}

export const findWidget = (node, name) => node.widgets.find((widget) => widget.name === name);

export function isWired(node, name) {
    const input = node.inputs?.find((each) => each.widget?.name === name || each.name === name);
    return input?.link !== null && input?.link !== undefined;
}

/** Call `changed` after each change of these widgets, from wherever it comes, and when a workflow is loaded. */
export function watchWidgets(node, names, changed) {
    for (const name of names) {
        const widget = findWidget(node, name);
        const before = widget.callback;
        widget.callback = function (...values) {
            const result = before?.apply(this, values);
            changed();
            return result;
        };
    }
    for (const hook of ["onConfigure", "onConnectionsChange"]) {
        const before = node[hook];
        node[hook] = function (...values) {
            const result = before?.apply(this, values);
            queueMicrotask(changed);
            return result;
        };
    }
}

/** Set widgets as if a person had done it. */
export function setWidgets(node, values) {
    for (const [name, value] of Object.entries(values)) {
        const widget = findWidget(node, name);
        if (widget.value === value) continue;
        widget.value = value;
        widget.callback?.(value, app.canvas, node);
    }
    node.setDirtyCanvas?.(true, true);
}

/** Make what was changed since the last time one step of the frontend's undo. */
export function recordStep() {
    app.canvas.emitBeforeChange();
    app.canvas.emitAfterChange();
}

/** Grow a node that is smaller than this; a saved size is put back by the frontend later. */
export function growTo(node, width, height) {
    node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
}
