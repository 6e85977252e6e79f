"""ComfyUI's page in a real browser, for the tests."""

import json
import os
import shutil

# What the frontend itself says on an empty ComfyUI: files of the user's that are not there yet, its own start, and
# the sizes of missing models, which it asks of their hosts and is not allowed to.
OWN_ERRORS = (
    "/userdata",
    "/user.css",
    "graph accessed before initialization",
    "https://huggingface.co/",
)
SECONDS = 90
RENDERERS = {"canvas": False, "vue": True}
# What the server says of the Download button where nothing is missing, and where a file is.
NOTHING_MISSING = {
    **{"complete": ["tiny"], "miniatures": [], "folder": "/models/dicetalk", "missing": []},
    **{"svd": True, "without_svd": [], "svd_folder": "/models/x"},
    **{"state": "idle", "file": None, "done": 0, "total": 0, "error": None},
}
UNET_MISSING = NOTHING_MISSING | {"complete": [], "missing": ["DICE-Talk/unet.pth"]}

# Each graph that is loaded opens a tab; the tabs before it are closed.
LOAD = """async (workflow) => {
    await app.loadGraphData(workflow);
    const tabs = app.extensionManager.workflow;
    for (const tab of [...tabs.openWorkflows]) {
        if (tab.path !== tabs.activeWorkflow.path) await tabs.closeWorkflow(tab);
    }
}"""
BUILD = """(text) => {
    app.graph.clear();
    const add = (type, x, y) => {
        const node = LiteGraph.createNode(type);
        node.pos = [x, y];
        app.graph.add(node);
        return node;
    };
    const loader = add("DiceTalkLoader", -760, 0);
    const audio = add("LoadAudio", -760, 220);
    const features = add("DiceTalkAudioFeatures", -360, 0);
    const wheel = add("DiceTalkEmotionWheel", 0, 0);
    const timeline = add("DiceTalkEmotionTimeline", 440, 0);
    audio.widgets.find((widget) => widget.name === "audio").value = "speech.flac";
    if (text !== null) timeline.widgets.find((widget) => widget.name === "timeline").value = text;
    loader.connect(1, features, 0);
    loader.connect(1, wheel, 0);
    loader.connect(1, timeline, 0);
    audio.connect(0, features, 1);
    return JSON.parse(JSON.stringify(app.graph.serialize()));
}"""


def chromium():
    """The path of a Chromium or Chrome: $CHROMIUM_PATH, else the first on the PATH; None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM_PATH") or next(filter(None, map(shutil.which, names)), None)


class Frontend:
    """The page, and what tests ask of it.

    Attributes:
        page: Playwright's page.
        errors: what the console and the page said was wrong, without the frontend's own.
        outside: addresses of requests to other hosts than the server, without those of missing models.
    """

    def __init__(self, page, url):
        self.page, self.url, self.errors, self.outside = page, url, [], []
        page.set_default_timeout(SECONDS * 1000)
        page.on("console", lambda message: message.type == "error" and self._note(message.text, message.location))
        page.on("pageerror", lambda error: self._note(str(error), {}))
        page.on("request", lambda request: self._note_request(request.url))

    def _note(self, text, location):
        said = f"{text} ({location.get('url', '')})"
        if not any(own in said for own in OWN_ERRORS):
            self.errors.append(said)

    def _note_request(self, url):
        if not url.startswith((self.url, "data:", "blob:", *OWN_ERRORS)):
            self.outside.append(url)

    def open(self):
        """Open the page, or open it again, and wait until the graph can be used."""
        self.page.goto(self.url)
        ready = "window.app?.extensionManager && window.graph && !document.querySelector('.p-blockui-mask')"
        self.page.wait_for_function(ready)
        self.page.wait_for_function("'DiceTalkEmotionTimeline' in (window.LiteGraph?.registered_node_types ?? {})")

    def set(self, name, value):
        """Change a setting of the frontend."""
        self.page.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [name, value])

    def setting(self, name):
        """The value of a setting of the frontend."""
        return self.page.evaluate("(name) => app.extensionManager.setting.get(name)", name)

    def use(self, renderer):
        """Change to one of the frontend's two renderers."""
        self.set("Comfy.VueNodes.Enabled", RENDERERS[renderer])
        self.page.wait_for_function("on => LiteGraph.vueNodesMode === on", arg=RENDERERS[renderer])

    def build(self, timeline=None):
        """Load a small graph: loader, audio, features, wheel, and timeline with that text."""
        self.load(self.page.evaluate(BUILD, timeline))

    def load(self, workflow):
        self.page.evaluate(LOAD, workflow)

    def fit(self):
        """Show the whole graph. The command FitView moves for 350 ms, and with it a graph that is loaded meanwhile."""
        self.page.evaluate(
            """async () => {
                app.canvas.fitViewToSelectionAnimated({ duration: 1 });
                for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
            }"""
        )

    def serialized(self):
        """The open graph as the page would save it: what is undefined is left out, where `evaluate` makes it null."""
        return json.loads(self.page.evaluate("JSON.stringify(app.graph.serialize())"))

    def show(self, kind, editor, scale=1):
        """Put a node of that type where nothing covers it; returns its editor, a locator."""
        self.page.evaluate(
            """([kind, scale]) => {
                const node = app.canvas.graph.nodes.find((node) => node.comfyClass === kind);
                app.canvas.ds.scale = scale;
                app.canvas.ds.offset = [120 / scale - node.pos[0], 130 / scale - node.pos[1]];
                app.canvas.ds.onChanged?.(scale, app.canvas.ds.offset);
                app.canvas.setDirty(true, true);
            }""",
            [kind, scale],
        )
        found = self.page.locator(editor)
        found.wait_for()
        # The frontend moves it with its next frames; where it is counts once it stays there.
        self.page.wait_for_function(
            """(editor) => {
                const { x, y, width } = document.querySelector(editor).getBoundingClientRect();
                const place = [x, y, width].join();
                const same = window.lastPlace === place && x > 60 && x < 600;
                window.lastPlace = place;
                return same;
            }""",
            arg=editor,
            polling=150,
        )
        return found

    def values(self, kind):
        """Widget values of the node of that type, by name."""
        return self.page.evaluate(
            """(kind) => {
                const node = app.graph.nodes.find((node) => node.comfyClass === kind);
                const kept = node.widgets.filter((widget) => widget.serialize !== false);
                return Object.fromEntries(kept.map((widget) => [widget.name, widget.value]));
            }""",
            kind,
        )

    def wait_values(self, kind, **expected):
        """Wait until widgets have these values."""
        self.page.wait_for_function(
            """([kind, expected]) => {
                const node = app.graph.nodes.find((node) => node.comfyClass === kind);
                const value = (name) => node?.widgets.find((widget) => widget.name === name)?.value;
                return Object.entries(expected).every(([name, wanted]) => value(name) === wanted);
            }""",
            arg=[kind, expected],
        )

    def queued(self, kind):
        """What the page would queue for the node of that type: its inputs in the API's format."""
        prompt = self.page.evaluate("async () => (await app.graphToPrompt()).output")
        return next(node["inputs"] for node in prompt.values() if node["class_type"] == kind)

    def focus_canvas(self):
        """Take the focus away from every editor, as a click on the empty canvas does."""
        self.page.evaluate("document.activeElement?.blur()")
