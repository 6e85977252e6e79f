"""Workflows as the frontend saves them: checked against /object_info, and turned into graphs that can be queued."""

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
AUTOGROW = "COMFY_AUTOGROW_V3"
NOTES = {"Note", "MarkdownNote"}
TITLE_HEIGHT = 30


def problems(workflow, object_info):
    """What does not fit the nodes that the server has, one line each."""
    found = []
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for node in nodes.values():
        kind = node["type"]
        if kind in NOTES:
            continue
        if kind not in object_info:
            found.append(f"{kind}: no such node")
            continue
        found += [f"{kind}.{problem}" for problem in _input_problems(node["inputs"], object_info[kind])]
        found += [f"{kind}.{problem}" for problem in _value_problems(node, object_info[kind])]
        outputs = list(zip(object_info[kind]["output_name"], object_info[kind]["output"], strict=True))
        if [(each["name"], each["type"]) for each in node["outputs"]] != outputs:
            found.append(f"{kind}: outputs are not {outputs}")
    for number, source, slot, target, place, kind in workflow["links"]:
        given = nodes[source]["outputs"][slot]
        taken = nodes[target]["inputs"][place]
        if number not in given["links"] or taken["link"] != number or given["type"] != kind:
            found.append(f"link {number} is not what its ends say")
        if kind not in taken["type"].split(","):
            found.append(f"link {number} brings {kind} to {nodes[target]['type']}.{taken['name']} ({taken['type']})")
    for a in nodes.values():
        for b in nodes.values():
            if a["id"] < b["id"] and _overlap(a, b):
                found.append(f"{a['type']} ({a['id']}) and {b['type']} ({b['id']}) overlap")
    return found


def _input_problems(entries, info):
    known, required = known_inputs(info), info["input"].get("required", {})
    for entry in entries:
        group, *member = entry["name"].split(".")
        if group not in known:
            yield f"{entry['name']}: no such input"
        elif not member or known[group][0] == AUTOGROW:
            type_ = _grown_type(known[group][1]) if member else _type_name(known[group][0])
            if entry["type"] != type_:
                yield f"{entry['name']}: its type is {type_}, not {entry['type']}"
    names = {entry["name"].split(".")[0] for entry in entries}
    yield from (f"{name}: missing" for name in known if name not in names and name in required)
    yield from (
        f"{entry['name']}: nothing is wired to it"
        for entry in entries
        if entry["name"] in required and "widget" not in entry and entry["link"] is None
    )


def _value_problems(node, info):
    try:
        inputs, rest = _widget_inputs(node, info)
    except StopIteration:
        yield "widgets_values: too few"
        return
    if rest:
        yield f"widgets_values: {rest} are left over"
    for name, value in inputs.items():
        type_, *options = known_inputs(info).get(name, ("",))
        options = options[0] if options else {}
        if type_ in ("INT", "FLOAT") and not options.get("min", value) <= value <= options.get("max", value):
            yield f"{name}: {value} is out of its range"
        if type_ == "BOOLEAN" and not isinstance(value, bool):
            yield f"{name}: {value!r} is not true or false"


def to_graph(workflow, object_info):
    """The graph in the API's format: node id → class_type and inputs."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        inputs, rest = _widget_inputs(node, object_info[node["type"]])
        assert not rest, f"{node['type']}: widget values are left over"
        inputs |= {each["name"]: links[each["link"]] for each in node["inputs"] if each["link"] is not None}
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def _widget_inputs(node, info):
    """Name → value of a node's widgets, and what is left of its `widgets_values`.

    Values may lack for the last ones that are optional: inputs that the node has gained since keep their defaults.
    """
    values, inputs = iter(node["widgets_values"]), {}
    for name, (kind, *options) in known_inputs(info).items():
        options = options[0] if options else {}
        if not is_widget(kind, options):
            continue
        try:
            inputs[name] = next(values)
        except StopIteration:
            if name in info["input"].get("required", {}):
                raise
            break
        for extra in ("control_after_generate", "image_upload", "video_upload", "audio_upload", "audio_upload"):
            if options.get(extra):
                next(values)
        for nested in nested_inputs(inputs[name], options) if kind == "COMFY_DYNAMICCOMBO_V3" else ():
            inputs[f"{name}.{nested}"] = next(values)
    return inputs, list(values)


def known_inputs(info):
    """Name → [type, options] of a node's inputs, the required ones first."""
    return info["input"].get("required", {}) | info["input"].get("optional", {})


def is_widget(type_, options):
    """Whether an input has a widget, and so a value of its own."""
    return (isinstance(type_, list) or type_ in WIDGET_TYPES) and not options.get("forceInput")


def nested_inputs(key, options):
    """Names of the inputs that an option of a dynamic combo brings."""
    chosen = next(option for option in options["options"] if option["key"] == key)
    return chosen["inputs"]["required"]


def _type_name(type_):
    return "COMBO" if isinstance(type_, list) else type_


def _grown_type(options):
    ((type_, *_),) = options["template"]["input"]["required"].values()
    return type_


def _overlap(a, b):
    (ax, ay), (aw, ah), (bx, by), (bw, bh) = a["pos"], a["size"], b["pos"], b["size"]
    ay, by = ay - TITLE_HEIGHT, by - TITLE_HEIGHT
    ah, bh = ah + TITLE_HEIGHT, bh + TITLE_HEIGHT
    return ax < bx + bw and bx < ax + aw and ay < by + bh and by < ay + ah
