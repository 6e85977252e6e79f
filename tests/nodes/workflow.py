"""Workflows as the frontend saves them: checked against /object_info, and turned into graphs that can be queued."""

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
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
        known = _inputs(object_info[kind])
        names = {each["name"] for each in node["inputs"]}
        found += [f"{kind}.{name}: no such input" for name in names if name.split(".")[0] not in known]
        found += [f"{kind}.{name}: missing" for name in object_info[kind]["input"].get("required", {}).keys() - names]
        outputs = list(zip(object_info[kind]["output_name"], object_info[kind]["output"]))
        if [(each["name"], each["type"]) for each in node["outputs"]] != outputs:
            found.append(f"{kind}: outputs are not {outputs}")
    for number, source, slot, target, place, kind in workflow["links"]:
        given = nodes[source]["outputs"][slot]
        taken = nodes[target]["inputs"][place]
        if number not in given["links"] or taken["link"] != number or given["type"] != kind:
            found.append(f"link {number} is not what its ends say")
        if taken["type"] != kind:
            found.append(f"link {number} brings {kind} to {nodes[target]['type']}.{taken['name']} ({taken['type']})")
    for a in nodes.values():
        for b in nodes.values():
            if a["id"] < b["id"] and _overlap(a, b):
                found.append(f"{a['type']} ({a['id']}) and {b['type']} ({b['id']}) overlap")
    return found


def to_graph(workflow, object_info):
    """The graph in the API's format: node id → class_type and inputs."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        values, inputs = iter(node["widgets_values"]), {}
        linked = {each["name"]: each["link"] for each in node["inputs"]}
        for name, (kind, *options) in _inputs(object_info[node["type"]]).items():
            options = options[0] if options else {}
            if (isinstance(kind, list) or kind in WIDGET_TYPES) and not options.get("forceInput"):
                inputs[name] = next(values)
                for extra in ("control_after_generate", "image_upload", "audio_upload", "audio_upload"):
                    if options.get(extra):
                        next(values)
                for nested in _nested(inputs[name], options) if kind == "COMFY_DYNAMICCOMBO_V3" else ():
                    inputs[f"{name}.{nested}"] = next(values)
            if linked.get(name) is not None:
                inputs[name] = links[linked[name]]
        assert not list(values), f"{node['type']}: widget values are left over"
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def _inputs(info):
    return info["input"].get("required", {}) | info["input"].get("optional", {})


def _nested(key, options):
    """Names of the inputs that an option of a dynamic combo brings."""
    chosen = next(option for option in options["options"] if option["key"] == key)
    return chosen["inputs"]["required"]


def _overlap(a, b):
    (ax, ay), (aw, ah), (bx, by), (bw, bh) = a["pos"], a["size"], b["pos"], b["size"]
    ay, by = ay - TITLE_HEIGHT, by - TITLE_HEIGHT
    ah, bh = ah + TITLE_HEIGHT, bh + TITLE_HEIGHT
    return ax < bx + bw and bx < ax + aw and ay < by + bh and by < ay + ah
