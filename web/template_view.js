// The pack's example graphs open so large that their words are drawn.
//
// ComfyUI fits a graph from its Templates into three quarters of the window, whatever view the file has, and below a zoom
// it draws nodes without words. A graph that would be opened so small gets the view of its file instead: its beginning.

import { app } from "../../scripts/app.js";

const MARK = "dicetalk_template"; // in `extra` of the example graphs

/** The least zoom at which the canvas draws words: its setting is a size of letters in pixels. */
function leastZoom() {
    return app.canvas.min_font_size_for_lod / (LiteGraph.NODE_TEXT_SIZE * Math.sqrt(window.devicePixelRatio || 1));
}

function showWords(extra) {
    const { ds } = app.canvas;
    // A saved copy that somebody zoomed out has the view of its file already.
    if (ds.scale < leastZoom() && ds.scale !== extra.ds.scale) {
        ds.scale = Math.max(extra.ds.scale, leastZoom());
        ds.offset = [...extra.ds.offset];
    }
    ds.onChanged?.(ds.scale, ds.offset); // by which the canvas decides whether it draws words and shows editors
    app.canvas.setDirty(true, true);
}

app.registerExtension({
    name: "DiceTalk.TemplateView",
    afterConfigureGraph() {
        const { extra } = app.graph;
        if (extra?.[MARK] && extra.ds) showWords(extra);
    },
});
