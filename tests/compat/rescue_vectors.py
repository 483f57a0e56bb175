"""Holds scripts/rescue/tidemark_rescue.py against packages/crypto/vectors/format-1.json, and against file lists no writer would make.

Usage: rescue_vectors.py <folder of the script> <format-1.json>. Prints what it checked; a failed check is an exception.
"""

import base64
import contextlib
import io
import json
import os
import struct
import sys
import tempfile

sys.path.insert(0, sys.argv[1])
import tidemark_rescue as rescue  # noqa: E402

P = rescue.Primitives()
COUNTS = {}


def check(part, condition, what):
    COUNTS[part] = COUNTS.get(part, 0) + 1
    if not condition:
        raise SystemExit(f"{part}: {what}")


def refusal_of(action):
    try:
        action()
    except rescue.Refusal as refusal:
        return refusal
    return None


def backup_with(**attributes):
    backup = object.__new__(rescue.Backup)
    for name, value in attributes.items():
        setattr(backup, name, value)
    return backup


def identities(vectors):
    for vector in vectors:
        given, want = vector["identity"], bytes.fromhex(vector["bytes"])
        if given["kind"] in ("pack", "file-list"):
            prefix = {"pack": "pack", "file-list": "files"}[given["kind"]]
            got = backup_with(id=given["backupId"]).identity({"name": f"{prefix}-{given['ordinal']:05d}"}, prefix)
        elif given["kind"] == "wal":
            size = given["segmentBytes"]
            log, low = divmod(given["segment"] if isinstance(given["segment"], int) else int(given["segment"]), 0x100000000 // size)
            name = f"{given['timeline']:08X}{log:08X}{low:08X}"
            at = (log << 32) + low * size
            record = {"systemId": given["systemId"], "timeline": given["timeline"], "server": {"walSegmentBytes": size},
                      "startLsn": f"{at >> 32:X}/{(at & 0xFFFFFFFF) + 40:X}", "stopLsn": f"{at >> 32:X}/{(at & 0xFFFFFFFF) + 80:X}",
                      "wal": {"first": name, "last": name, "segments": 1}}
            relative = f"wal/{name[:8]}/{name[8:16]}/{name}-{given['digest']}"
            got = backup_with(record=record, folder="f", wal=[relative]).segments()[0][2]
        else:
            got = bytes.fromhex(given["streamId"])
        check("identities", got.ljust(64, b"\0") == want, f"{given}: {got.hex()}")


def streams(vectors, digest_of):
    for vector in vectors:
        header, identity = bytes.fromhex(vector["header"]), bytes.fromhex(digest_of(vector["identity"]))
        keys = {vector["dataKeyId"]: bytes.fromhex(vector["dataKey"])}

        def opened(data=header):
            return rescue.Sealed(P, data, rescue.PACK, identity, keys.get, "vector", vector["salt"])
        sealed = opened()
        names = ("encrypt", "mac", "iv")
        check("keys", all(getattr(sealed, name).hex() == vector["keys"][name] for name in names), vector["suite"])
        for at in range(len(header)):
            changed = header[:at] + bytes([header[at] ^ 1]) + header[at + 1:]
            check("changed headers", refusal_of(lambda: opened(changed)), f"byte {at} changed, and not refused")
        # Whoever holds the key could fill what is kept zero: a reader of version 1 must not pass it over.
        info = b"tidemark" + header[8:11] + b"header"
        filled = header[:12] + b"\0\0\0\1" + header[16:128]
        tagged = filled + rescue.hmac_sha256(rescue.hkdf(keys[vector["dataKeyId"]], header[32:64], info), filled)
        check("reserved bytes", "another object" in str(refusal_of(lambda: opened(tagged))), "the header's reserved bytes")
        for frame in vector["frames"]:
            data, index = bytes.fromhex(frame["frame"]), int(frame["index"])
            flags, _, rest = sealed.frame_bytes(data[:12], index)
            right = flags == frame["flags"] and rest == len(data) - 12
            check("frames", right and sealed.open(index, data[:12], data[12:]).hex() == frame["plaintext"], frame["note"])
            check("moved frames", refusal_of(lambda: sealed.open(index + 1, data[:12], data[12:])), frame["note"])
            for at in range(len(data)):
                changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
                refused = refusal_of(lambda: sealed.open(index, changed[:12], changed[12:]))
                check("changed frames", refused, f"{frame['note']}: byte {at} changed, and not refused")


def documents(vectors):
    for vector in vectors["keyedDigests"]:
        got = rescue.keyed_digest(bytes.fromhex(vector["digestKey"]), vector["purpose"].encode(), bytes.fromhex(vector["plaintext"]))
        check("keyed digests", got.hex() == vector["digest"], vector["purpose"])
    kek = vectors["keyEncryptionKey"]
    for wrap in kek["wraps"]:
        _, _, set_id, purpose = wrap["context"].split(" ", 3)
        holder = object.__new__(rescue.Repository)
        holder.p, holder.set_id, holder.kek, holder.kek_id = P, set_id, bytes.fromhex(kek["key"]), wrap["wrap"]["kek"]
        alien, other = {"type": "later"}, dict(wrap["wrap"], kek="0" * 16)
        holder.wraps = {purpose: [alien, other, wrap["wrap"]], purpose + "x": [wrap["wrap"]], "none": [alien, other]}
        check("wraps", holder.unwrap(purpose).hex() == wrap["secret"], wrap["context"])
        check("wraps", refusal_of(lambda: holder.unwrap(purpose + "x")), "another purpose")
        check("wraps", holder.unwrap("none") is None and holder.unwrap("absent") is None, "no wrap that is ours")
    signed = vectors["signedDocument"]
    public = rescue.unbase64(signed["publicKey"], 32, "vector")
    payload, line, _ = signed["document"].encode().split(b"\n")
    signature = rescue.unbase64(rescue.SIGNATURE_LINE.fullmatch(line)[1], 64, "vector")
    check("signatures", P.verifies(public, signature, payload), "the signed document")
    check("signatures", not P.verifies(public, signature, payload + b" "), "a changed document")
    ring = vectors["keyring"]
    with tempfile.TemporaryDirectory() as root:
        os.mkdir(os.path.join(root, "keys"))
        about = {"format": "tidemark-repository", "version": 1, "setId": ring["setId"], "publicKey": ring["publicKey"], "requires": []}
        for name, text in (("tidemark.json", json.dumps(about)), ("keys/keyring-1-00.json", ring["document"])):
            with open(os.path.join(root, name), "w", encoding="utf-8") as file:
                file.write(text)
        repository = rescue.Repository(P, root, bytes.fromhex(ring["kek"]))
        check("keyring", repository.data_key(ring["dataKey"]["id"]).hex() == ring["dataKey"]["bytes"], "data key")
        check("keyring", repository.digest_key.hex() == ring["digestKey"], "digest key")
        wrong = refusal_of(lambda: rescue.Repository(P, root, bytes(32)))
        check("keyring", wrong and wrong.code == rescue.KEY, "a wrong key")
        pinned = refusal_of(lambda: rescue.Repository(P, root, bytes.fromhex(ring["kek"]), bytes(32)))
        check("keyring", pinned and pinned.code == rescue.DAMAGED, "another public key than the pinned one")


def entry(path, kind=rescue.FILE, zero=0, mode=0o600, size=0, target=b"", extents=()):
    packed = b"".join(struct.pack(">QIIII", *extent) for extent in extents)
    return struct.pack(">BBHqQHHI", kind, zero, mode, 0, size, len(path), len(target), len(extents)) + path + target + packed


def hostile_file_lists():
    bad = [entry(path) for path in (b"", b"/etc/passwd", b"../up", b"a/../../up", b"a//b", b"a/", b".", b"a/./b", b"a\0b")]
    bad += [entry(b"a", kind=4), entry(b"a", zero=1), entry(b"a", kind=rescue.DIRECTORY, size=1), entry(b"a", target=b"t"),
            entry(b"a", kind=rescue.LINK), entry(b"a", size=9, extents=[(0, 10, 0, 0, 0)]), entry(b"a", size=9, extents=[(0, 0, 0, 0, 0)]),
            entry(b"a", size=9, extents=[(0, 5, 0, 0, 0), (4, 5, 0, 0, 0)]), entry(b"a", size=9, extents=[(0, 5, 1, 0, 0)]),
            entry(b"a", kind=rescue.LINK, target=b"x\0y"), entry(b"a")[:-1], b"\1"]

    def listing(data):
        backup = backup_with(lists=[{"name": "files-00001"}], id="0" * 16, folder="f", packs=[{}])
        backup._plaintexts = lambda *_: iter([data[:13], data[13:]])
        return list(backup.files())
    check("file lists", len(listing(entry(b"a/b", size=9, extents=[(4, 5, 0, 0, 0)]))) == 1, "a right entry")
    for data in bad:
        check("file lists", refusal_of(lambda: listing(data)), f"{data!r} not refused")


def frame_tables():
    """Only the end of a pack may carry the flag: elsewhere it is refused before anything is computed."""
    sealed = object.__new__(rescue.Sealed)
    sealed.what, sealed.tag_bytes = "vector", 16
    for flags in (rescue.TABLE, rescue.TABLE | rescue.LAST):
        file = io.BytesIO(struct.pack(">B3xII", flags, 0, 0) + bytes(16))
        check("frame tables", "outside a pack" in str(refusal_of(lambda: list(rescue.read_stream(file, sealed, 1)))), flags)


def histories():
    """A history file is bound to its system and timeline (section 9)."""
    key, text = bytes(range(32)), b"1\t0/5000000\tno recovery target specified\n"
    digest = rescue.keyed_digest(key, b"history", struct.pack(">QI", 7, 2) + text).hex()
    for system, timeline, right in (("7", 2, True), ("8", 2, False), ("7", 3, False)):
        repository = type("Fake", (), {"digest_key": key, "data_key": None, "open": lambda *_: io.BytesIO(b"")})()
        backup = backup_with(r=repository, p=P, folder="f", history=[f"wal/{timeline:08X}.history-{digest}"],
                             record={"systemId": system, "server": {"walSegmentBytes": 1}}, segments=lambda: [])
        was = rescue.Sealed, rescue.read_stream
        rescue.Sealed, rescue.read_stream = lambda *_: None, lambda *_: iter([text])
        try:
            refused = refusal_of(lambda: backup.write_wal(lambda name: io.BytesIO()))
        finally:
            rescue.Sealed, rescue.read_stream = was
        check("histories", (refused is None) == right, f"system {system}, timeline {timeline}")


def hostile_texts():
    """What others wrote does not steer a terminal."""
    shown = rescue.plain("a\x1b[2J\x9b\udcff\rb\n\tü")
    check("texts", shown == "a\\x1b[2J\\x9b\\udcff\\rb\n\tü", shown)


def unknown_features():
    def document(**members):
        return json.dumps({"format": "f", "version": 1, "requires": [], **members}).encode()
    rescue.parse(document(), "f", "known")
    for text in (document(version=2), document(version=0), document(version=True), document(version="1"), document(requires=["x"])):
        refused = refusal_of(lambda: rescue.parse(text, "f", "unknown"))
        check("unknown versions and features", refused and refused.code == rescue.UNKNOWN, text)


def tablespaces():
    """A tablespace that the source had before the copy is harmless; one that was created during it is laid out only when told to."""
    def checked(spaces, replay=False):
        backup = backup_with(record={"server": {"tablespaceOids": ["7"]}}, source=lambda: {"tablespaces": spaces})
        work = rescue.Restore(backup, "/nowhere", {}, replay)
        return refusal_of(lambda: work._check_tablespaces({b"7"}))
    with tempfile.TemporaryDirectory() as folder:
        def space(seen, location=folder):
            return [{"oid": "7", "name": "s", "location": location, "seen": seen}]
        check("tablespaces", checked(space(["before", "copy"])) is None, "of before")
        check("tablespaces", checked(space(["before", "a word of later"])) is None, "of before, and seen in another way")
        for spaces in ([], space(["after"]), space(["before", "wal"])):
            check("tablespaces", checked(spaces).code == rescue.TARGET, f"{spaces} laid out unasked")
            check("tablespaces", checked(spaces, True) is None, f"{spaces} refused")
        open(os.path.join(folder, "PG_15"), "w").close()
        check("tablespaces", checked(space(["wal"]), True).code == rescue.TARGET, "in use, and laid out")


def configuration():
    documents = [{"kind": "main", "path": "/etc/x.conf", "inDataDirectory": False, "content": base64.b64encode(b"port = 5444\n").decode()},
                 {"kind": "of later", "path": "/etc/y.conf", "inDataDirectory": False, "content": ""},
                 {"kind": "auto", "path": "/d/postgresql.auto.conf", "inDataDirectory": True, "content": None}]
    setting = {"name": "work_mem", "value": "64", "unit": "kB", "source": "configuration file", "file": "/etc/x.conf"}
    source = {"configuration": documents, "unread": [{"what": "pg_hba.conf", "reason": "denied"}], "settings": [setting],
              "tablespaces": [], "databases": [], "extensions": []}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        rescue.print_configuration(backup_with(source=lambda: source))
    for part in ("main /etc/x.conf\nport = 5444\n", "auto /d/postgresql.auto.conf\n# (in the data", "work_mem = '64' kB", "denied", "of later /etc/y.conf"):
        check("configuration", part in printed.getvalue(), part)


with open(sys.argv[2], encoding="utf-8") as vector_file:
    VECTORS = json.load(vector_file)
BYTES = {json.dumps(vector["identity"], sort_keys=True): vector["bytes"] for vector in VECTORS["identities"]}
identities(VECTORS["identities"])
streams(VECTORS["streams"], lambda identity: BYTES[json.dumps(identity, sort_keys=True)])
documents(VECTORS)
hostile_file_lists()
frame_tables()
histories()
hostile_texts()
unknown_features()
tablespaces()
configuration()
print(json.dumps(COUNTS))
