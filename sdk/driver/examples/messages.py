"""The messages of drivers in Python, without packages: JSON to Protobuf and back, as `driver.proto` describes them.

    python3 messages.py ../proto/messages.json      # converts each test vector both ways, and compares

A driver that speaks JSON needs none of this: its messages are what `json` reads. This is for one that speaks Protobuf, and
shows that the description of the messages is all that one needs.
"""

import base64
import json
import pathlib
import re
import struct
import sys

PROTO = pathlib.Path(__file__).resolve().parent.parent / "proto" / "driver.proto"

VARINT, FIXED64, BYTES = 0, 1, 2
INTEGERS = {"uint64", "int64", "uint32", "bool"}


class Field:
    """A field of a message. `shown` is whether its presence counts, so that its default value is written."""

    def __init__(self, label, kind, name, number, shown):
        self.repeated = label == "repeated"
        self.shown = shown
        self.kind = kind
        self.number = number
        head, *rest = name.split("_")
        self.name = head + "".join(part.capitalize() for part in rest)


def read_proto(text):
    """The fields of each message, and the values of each enumeration."""
    messages, enums, inside = {}, {}, []
    text = re.sub(r"//[^\n]*", "", text)
    pattern = r"(message|enum|oneof)\s+(\w+)\s*\{|(\})|(?:(optional|repeated)\s+)?(\w+)\s+(\w+)\s*=\s*(\d+);|(\w+)\s*=\s*(\d+);"
    for block, name, end, label, kind, field, number, value, place in re.findall(pattern, text):
        if block:
            inside.append((block, name))
            {"message": messages, "enum": enums}.get(block, {}).setdefault(name, [] if block == "message" else {})
        elif end:
            inside.pop()
        elif field:
            owner = next(name for block, name in reversed(inside) if block == "message")
            shown = label == "optional" or inside[-1][0] == "oneof"
            messages[owner].append(Field(label, kind, field, int(number), shown))
        elif value and inside:
            enums[inside[-1][1]][value] = int(place)
    return messages, enums


MESSAGES, ENUMS = read_proto(PROTO.read_text(encoding="utf-8"))


def varint(value):
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def to_protobuf(message, value):
    """The bytes of a message whose JSON form is `value`."""
    out = bytearray()
    for field in sorted(MESSAGES[message], key=lambda field: field.number):
        if field.name not in value:
            continue
        items = value[field.name] if field.repeated else [value[field.name]]
        for item in items:
            wire, data = scalar_to_bytes(field, item)
            default = data in (b"", b"\0", bytes(8)) and field.kind not in MESSAGES
            if default and not field.shown and not field.repeated:
                continue
            out += varint(field.number << 3 | wire) + data if wire != BYTES else (
                varint(field.number << 3 | wire) + varint(len(data)) + data
            )
    return bytes(out)


def scalar_to_bytes(field, item):
    if field.kind in MESSAGES:
        return BYTES, to_protobuf(field.kind, item)
    if field.kind in ENUMS:
        return VARINT, varint(ENUMS[field.kind][item])
    if field.kind in INTEGERS:
        return VARINT, varint(int(item))
    if field.kind == "double":
        return FIXED64, struct.pack("<d", item)
    return BYTES, base64.b64decode(item) if field.kind == "bytes" else item.encode()


def read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def from_protobuf(message, data):
    """The JSON form of a message. Fields that nobody knows are left out."""
    fields = {field.number: field for field in MESSAGES[message]}
    value, at = {}, 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == VARINT:
            found, at = read_varint(data, at)
        elif tag & 7 == FIXED64:
            found, at = struct.unpack("<d", data[at : at + 8])[0], at + 8
        else:
            length, at = read_varint(data, at)
            found, at = data[at : at + length], at + length
        field = fields.get(tag >> 3)
        if field is None:
            continue
        item = from_scalar(field, found)
        if field.repeated:
            value.setdefault(field.name, []).append(item)
        else:
            value[field.name] = item
    return value


def from_scalar(field, found):
    if field.kind in MESSAGES:
        return from_protobuf(field.kind, found)
    if field.kind in ENUMS:
        return next(name for name, number in ENUMS[field.kind].items() if number == found)
    if field.kind == "bool":
        return found != 0
    if field.kind == "uint64":
        return str(found)
    if field.kind == "int64":
        return str(found - (1 << 64) if found >> 63 else found)
    if field.kind == "bytes":
        return base64.b64encode(found).decode()
    return found.decode() if field.kind == "string" else found


def main():
    vectors = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    for vector in vectors:
        message, form, data = vector["message"], vector["json"], base64.b64decode(vector["protobuf"])
        if to_protobuf(message, form) != data:
            sys.exit(f"{message} as Protobuf is {to_protobuf(message, form)!r}, expected {data!r}")
        if from_protobuf(message, data) != form:
            sys.exit(f"{message} as JSON is {from_protobuf(message, data)}, expected {form}")
    print(f"{len(vectors)} vectors")


if __name__ == "__main__":
    main()
