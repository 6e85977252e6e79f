"""Workflows as the frontend saves them: checked against /object_info, and turned into graphs that can be queued."""

import copy

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
AUTOGROW = "COMFY_AUTOGROW_V3"
NOTES = {"Note", "MarkdownNote"}
TITLE_HEIGHT = 30


def expanded(workflow):
    """The workflow with the nodes of its subgraphs in the place of the nodes that stand for them, as the page runs it.

    A node's id becomes "ID:INNER"; the values of a subgraph's node go to the widgets that its inputs are wired to.
    """
    workflow = copy.deepcopy(workflow)
    for definition in workflow.pop("definitions", {"subgraphs": []})["subgraphs"]:
        for outer in [node for node in workflow["nodes"] if node["type"] == definition["id"]]:
            _expand(workflow, outer, definition)
    return workflow


def _expand(workflow, outer, definition):
    prefix, nodes = f"{outer['id']}:", copy.deepcopy(definition["nodes"])
    inner = {node["id"]: node for node in nodes}
    offset = 1 + max([0, *(link[0] for link in workflow["links"])])
    values = dict(zip([name for _, name in outer["properties"]["proxyWidgets"]], outer["widgets_values"], strict=True))
    given = {entry["name"]: entry["link"] for entry in outer["inputs"]}
    for node in nodes:
        for entry in node["inputs"]:
            entry["link"] = None if entry["link"] is None else entry["link"] + offset
        for entry in node["outputs"]:
            entry["links"] = [link + offset for link in entry["links"] or []] or None
    for link in definition["links"]:
        number, source, target = link["id"] + offset, link["origin_id"], link["target_id"]
        if source == definition["inputNode"]["id"]:
            name, node = definition["inputs"][link["origin_slot"]]["name"], inner[target]
            entry = node["inputs"][link["target_slot"]]
            entry["link"] = given[name]
            if name in values:
                _set_widget(node, entry["widget"]["name"], values[name])
            if given[name] is not None:
                wire = next(each for each in workflow["links"] if each[0] == given[name])
                wire[3:5] = [prefix + str(target), link["target_slot"]]
        elif target == definition["outputNode"]["id"]:
            wires = outer["outputs"][link["target_slot"]]["links"]
            inner[source]["outputs"][link["origin_slot"]]["links"] = wires
            for wire in workflow["links"]:
                if wire[0] in (wires or []):
                    wire[1:3] = [prefix + str(source), link["origin_slot"]]
        else:
            ends = [prefix + str(source), link["origin_slot"], prefix + str(target), link["target_slot"], link["type"]]
            workflow["links"].append([number, *ends])
    for node in nodes:
        node["id"] = prefix + str(node["id"])
    workflow["nodes"] = [node for node in workflow["nodes"] if node is not outer] + nodes


def _set_widget(node, name, value):
    """Set a widget's value; those that ComfyUI adds to a seed or an upload come after their own."""
    place, extra = 0, {"seed": 1, "image": 1, "audio": 2}
    for entry in node["inputs"]:
        if "widget" in entry:
            if entry["name"] == name:
                node["widgets_values"][place] = value
                return
            place += 1 + extra.get(entry["name"], 0)
    raise KeyError(name)


def problems(workflow, object_info):
    """What does not fit the nodes that the server has, one line each."""
    found, levels = [], [workflow, *workflow.get("definitions", {"subgraphs": []})["subgraphs"]]
    workflow = expanded(workflow)
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
    for level in levels:
        for a in level["nodes"]:
            for b in level["nodes"]:
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
    workflow = expanded(workflow)
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
