// DICE-Talk Video of a graph that was saved before it could smooth the motion: it keeps the frame rate that it had.

import { app } from "../../scripts/app.js";
import { findWidget } from "./node_editor.js";

app.registerExtension({
    name: "DiceTalk.Video",
    nodeCreated(node) {
        if (node.comfyClass !== "DiceTalkVideo") return;
        const before = node.onConfigure;
        node.onConfigure = function (saved) {
            const result = before?.call(this, saved);
            const place = this.widgets.filter((widget) => widget.serialize !== false).findIndex(({ name }) => name === "smooth_motion");
            if (Array.isArray(saved.widgets_values) && saved.widgets_values.length <= place) findWidget(this, "smooth_motion").value = false;
            return result;
        };
    },
});
