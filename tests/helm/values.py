"""What a values.yaml says of itself: its JSON schema and the table of its README, made from its keys, defaults and comments.

A comment `# -- text` is a key's row in the table. A comment `# @schema {…}` is merged into the key's schema, which otherwise follows from the default: a map
that has keys takes no others, so that a typo is refused; an empty map or list takes anything.
"""

import json

import yaml

SIMPLE = {
    "tag:yaml.org,2002:str": "string",
    "tag:yaml.org,2002:int": "integer",
    "tag:yaml.org,2002:bool": "boolean",
    "tag:yaml.org,2002:float": "number",
}


class Key:
    """One key: its path, its default, its comments, and the keys below it."""

    def __init__(self, path, node, comments):
        self.path = path
        self.node = node
        self.text = " ".join(line.removeprefix("--").strip() for line in comments if line.startswith("--"))
        self.override = {}
        for line in comments:
            if line.startswith("@schema "):
                self.override |= json.loads(line.removeprefix("@schema "))
        self.below = []

    @property
    def is_open(self):
        """Whether what is below is not ours to name."""
        return not self.below or self.override.get("additionalProperties") is True

    def schema(self):
        node = self.node
        if isinstance(node, yaml.MappingNode):
            schema = {"type": "object"}
            if not self.is_open:
                schema |= {"additionalProperties": False, "properties": {key.path[-1]: key.schema() for key in self.below}}
        elif isinstance(node, yaml.SequenceNode):
            schema = {"type": "array"}
        else:
            schema = {"type": SIMPLE[node.tag]}
        schema |= self.override
        if self.text:
            schema["description"] = self.text
        return schema

    def rows(self):
        if self.text:
            default = json.dumps(yaml.safe_load(yaml.serialize(self.node)), separators=(", ", ": "))
            yield f"| `{'.'.join(self.path)}` | `{default}` | {self.text} |"
        if not self.is_open and not self.text:
            for key in self.below:
                yield from key.rows()


def read(text):
    lines = text.splitlines()

    def comments(line):
        found = []
        while line > 0 and lines[line - 1].lstrip().startswith("#"):
            line -= 1
            found.insert(0, lines[line].lstrip().removeprefix("#").strip())
        return found

    def walk(node, path):
        for name, value in node.value:
            key = Key([*path, name.value], value, comments(name.start_mark.line))
            if isinstance(value, yaml.MappingNode):
                key.below = list(walk(value, key.path))
            yield key

    return list(walk(yaml.compose(text), []))


def schema(text):
    properties = {key.path[0]: key.schema() for key in read(text)}
    # Helm hands the global values to every chart.
    properties["global"] = {"type": "object"}
    document = {"$schema": "https://json-schema.org/draft-07/schema#", "type": "object", "additionalProperties": False, "properties": properties}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def table(text):
    rows = [row for key in read(text) for row in key.rows()]
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows]) + "\n"


def undocumented(text):
    """Keys that no comment explains, neither theirs nor one above."""

    def walk(keys):
        for key in keys:
            if key.text:
                continue
            if key.is_open or not isinstance(key.node, yaml.MappingNode):
                yield ".".join(key.path)
            else:
                yield from walk(key.below)

    return list(walk(read(text)))
