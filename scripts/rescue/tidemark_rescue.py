#!/usr/bin/env python3
"""Opens Tidemark backups without Tidemark: one file, for a host that has nothing but Python.

Needs Python 3.9, the repository as a folder (a file:// repository, or a bucket copied with `aws s3 sync` or rclone) and the
key-encryption key in BACKUP_ENCRYPTION_KEY or --key-file. It loads libcrypto (the one that Python itself is linked to), and
libzstd, else the command zstd; what is used is printed first. (The openssl command is no substitute: it has no GCM, and shows
keys in the process list.) docs/rescue.md tells how to go from here to a running PostgreSQL.

Written from docs/repository-format.md alone; "section n" means that page. It reads only, and sends nothing anywhere.
Memory: one pack (16 MiB unless configured otherwise), 24 bytes an extent, and one small entry a file.

Exit codes: 0 done; 2 wrong usage; 3 the key is missing or wrong; 4 there is no such repository, backup or format version that
this program knows; 5 the backup is damaged, incomplete or not authentic; 6 the target directory cannot be used.
"""

import argparse
import array
import base64
import ctypes
import ctypes.util
import hashlib
import hmac
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import threading

USAGE, KEY, UNKNOWN, DAMAGED, TARGET = 2, 3, 4, 5, 6
VERSION, MIB = 1, 1 << 20
HEADER_BYTES, FRAME_HEAD_BYTES, TRAILER_BYTES = 160, 12, 8
PACK, FILE_LIST, WAL, OTHER = 1, 2, 3, 4
COMPRESSED, LAST, TABLE = 1, 2, 4
FILE, DIRECTORY, LINK = 1, 2, 3


class Refusal(Exception):
    """A reason to stop, for the operator: what is wrong and what to look at. Nothing is guessed or skipped instead."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def need(condition, text, code=DAMAGED):
    if not condition:
        raise Refusal(code, text)


# ---- primitives: libcrypto and libzstd, or the commands ----------------------------------------------------------------------


def load(*names):
    """The first shared library of these names, or None."""
    for name in names:
        try:
            return ctypes.CDLL(name) if name else None
        except OSError:
            continue
    return None


class LibCrypto:
    """AES by OpenSSL's libcrypto (1.1.1 or newer)."""

    label = "libcrypto"

    def __init__(self):
        # Python's own _hashlib is linked to libcrypto: the very library that Python runs with is found through it.
        try:
            import _hashlib
            linked = getattr(_hashlib, "__file__", None)
        except ImportError:
            linked = None
        names = ["libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.so"]
        self.lib = next((x for x in map(load, [linked] * bool(linked) + names) if x and hasattr(x, "EVP_aes_256_gcm")), None)
        if self.lib is None:
            raise OSError("no libcrypto")
        p, i, s, z = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t
        for name, result, arguments in (
            ("EVP_CIPHER_CTX_new", p, []), ("EVP_CIPHER_CTX_free", None, [p]),
            ("EVP_aes_256_cbc", p, []), ("EVP_aes_256_ecb", p, []), ("EVP_aes_256_gcm", p, []),
            ("EVP_CIPHER_CTX_ctrl", i, [p, i, i, p]), ("EVP_CIPHER_CTX_set_padding", i, [p, i]),
            ("EVP_CipherInit_ex", i, [p, p, p, s, s, i]), ("EVP_CipherUpdate", i, [p, p, p, s, i]),
            ("EVP_CipherFinal_ex", i, [p, p, p]), ("EVP_PKEY_new_raw_public_key", p, [i, p, s, z]), ("EVP_PKEY_free", None, [p]),
            ("EVP_MD_CTX_new", p, []), ("EVP_MD_CTX_free", None, [p]), ("EVP_DigestVerifyInit", i, [p, p, p, p, p]),
            ("EVP_DigestVerify", i, [p, s, z, s, z]),
        ):
            function = getattr(self.lib, name)
            function.restype, function.argtypes = result, arguments

    def _run(self, cipher, key, iv, data, encrypt=0, padding=1, gcm=None):
        """The result, or None where padding or tag are wrong. `gcm` = (additional data, tag)."""
        lib, done = self.lib, ctypes.c_int(0)
        context = lib.EVP_CIPHER_CTX_new()
        try:
            out = ctypes.create_string_buffer(len(data) + 32)
            ok = lib.EVP_CipherInit_ex(context, cipher, None, key, iv, encrypt) == 1
            ok = ok and lib.EVP_CIPHER_CTX_set_padding(context, padding) == 1
            if gcm:
                ok = ok and lib.EVP_CIPHER_CTX_ctrl(context, 0x11, 16, ctypes.c_char_p(gcm[1])) == 1  # EVP_CTRL_AEAD_SET_TAG
                ok = ok and lib.EVP_CipherUpdate(context, None, ctypes.byref(done), gcm[0], len(gcm[0])) == 1
            ok = ok and lib.EVP_CipherUpdate(context, out, ctypes.byref(done), data, len(data)) == 1
            written = done.value
            ok = ok and lib.EVP_CipherFinal_ex(context, ctypes.byref(out, written), ctypes.byref(done)) == 1
            return ctypes.string_at(out, written + done.value) if ok else None
        finally:
            lib.EVP_CIPHER_CTX_free(context)

    def aes_block(self, key, block):
        return self._run(self.lib.EVP_aes_256_ecb(), key, None, block, encrypt=1, padding=0)

    def cbc(self, key, iv, data):
        return self._run(self.lib.EVP_aes_256_cbc(), key, iv, data)

    def gcm(self, key, nonce, bound, data, tag):
        return self._run(self.lib.EVP_aes_256_gcm(), key, nonce, data, gcm=(bound, tag))  # 12 bytes are the default nonce

    def ed25519(self, public, signature, message):
        """True or False; None where this libcrypto offers no Ed25519 (FIPS mode)."""
        key = self.lib.EVP_PKEY_new_raw_public_key(1087, None, public, 32)  # EVP_PKEY_ED25519
        if not key:
            return None
        context = self.lib.EVP_MD_CTX_new()
        try:
            if self.lib.EVP_DigestVerifyInit(context, None, None, None, key) != 1:
                return None
            return self.lib.EVP_DigestVerify(context, signature, len(signature), message, len(message)) == 1
        finally:
            self.lib.EVP_MD_CTX_free(context)
            self.lib.EVP_PKEY_free(key)


class LibZstd:
    label = "libzstd"

    def __init__(self):
        self.lib = load("libzstd.so.1", "libzstd.so") or load(ctypes.util.find_library("zstd"))
        if self.lib is None:
            raise OSError("no libzstd")
        p, s, z = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
        for name, arguments in (("ZSTD_decompress", [p, z, s, z]), ("ZSTD_findFrameCompressedSize", [s, z])):
            function = getattr(self.lib, name)
            function.restype, function.argtypes = z, arguments

    def decompress(self, data, length):
        """Exactly `length` bytes out of exactly one zstd frame, or None."""
        if self.lib.ZSTD_findFrameCompressedSize(data, len(data)) != len(data):
            return None
        out = ctypes.create_string_buffer(length + 1)
        return ctypes.string_at(out, length) if self.lib.ZSTD_decompress(out, length, data, len(data)) == length else None


class ZstdCommand:
    label = "the zstd command"

    def __init__(self):
        if not shutil.which("zstd"):
            raise Refusal(USAGE, "neither libzstd nor the command zstd on this host: install the package libzstd1 (docs/rescue.md)")

    def decompress(self, data, length):
        with subprocess.Popen(["zstd", "-d", "-c", "-q"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL) as run:
            def feed():
                try:
                    run.stdin.write(data)
                    run.stdin.close()
                except OSError:
                    pass
            feeder = threading.Thread(target=feed)
            feeder.start()
            out = run.stdout.read(length + 1)
            run.kill() if len(out) > length else run.wait()
            feeder.join()
        return out if run.returncode == 0 and len(out) == length else None


class Primitives:
    """What this host computes with, found at the start. `unsigned` allows to go on where Ed25519 is missing (FIPS mode)."""

    def __init__(self, zstd_command=False, unsigned=False):
        self.unsigned = unsigned
        try:
            self.aes = LibCrypto()
        except (OSError, AttributeError):
            raise Refusal(USAGE, "no libcrypto 1.1.1 or newer on this host: install the package libssl3 (docs/rescue.md)") from None
        try:
            self.zstd = ZstdCommand() if zstd_command else LibZstd()
        except (OSError, AttributeError):
            self.zstd = ZstdCommand()

    def verifies(self, public, signature, message):
        answer = self.aes.ed25519(public, signature, message)
        need(answer is not None or self.unsigned, "this host's libcrypto has no Ed25519 (FIPS mode?), so no signature can be checked. "
             "Use another host, or say --unsigned to go on: records could then have been changed", USAGE)
        return answer is None or answer


def hmac_sha256(key, data):
    return hmac.digest(key, data, "sha256")


def hkdf(key, salt, info):
    """RFC 5869 with SHA-256, 32 bytes: one block of output."""
    return hmac_sha256(hmac_sha256(salt or bytes(32), key), info + b"\1")


def keyed_digest(digest_key, purpose, data):
    return hmac_sha256(digest_key, purpose + data)[:16]


# ---- sealed streams: section 2 -----------------------------------------------------------------------------------------------


class Sealed:
    """The header of one sealed stream, proven to be the one asked for, and the keys of its frames (sections 2.1, 2.2)."""

    def __init__(self, primitives, header, kind, identity, data_keys, what, salt=None):
        need(len(header) == HEADER_BYTES and header[:8] == b"TIDEMARK", f"{what}: no sealed stream (cut short, or another file)")
        version, suite, has_kind, zero = struct.unpack(">HBBI", header[8:16])
        need(version == VERSION, f"{what}: format version {version}, this program reads {VERSION}", UNKNOWN)
        need(suite in (1, 2), f"{what}: unknown suite {suite}", UNKNOWN)
        key_id = header[16:32].hex()
        need(key_id in data_keys, f"{what}: sealed with data key {key_id}, which no keyring here has", KEY)
        self.p, self.what, self.suite, self.bound = primitives, what, suite, header[:128]

        def derive(role):
            return hkdf(data_keys[key_id], header[32:64], b"tidemark" + struct.pack(">HB", version, suite) + role)
        tag = hmac_sha256(derive(b"header"), header[:128])
        need(hmac.compare_digest(tag, header[128:]), f"{what}: wrong header tag (changed, or another key)")
        need(has_kind == kind and zero == 0 and header[64:128] == identity.ljust(64, b"\0"), f"{what}: another object's bytes")
        need(salt is None or header[32:64].hex() == salt, f"{what}: not the salt that the pack table names")
        self.encrypt, self.mac, self.iv = derive(b"encrypt"), derive(b"mac"), derive(b"iv")
        self.tag_bytes = 32 if suite == 1 else 16

    def frame_bytes(self, head, index):
        """The lengths a frame head declares (section 2.3), bounded before anything is read: (plaintext, ciphertext and tag)."""
        need(len(head) == FRAME_HEAD_BYTES, f"{self.what}: cut short before frame {index}")
        flags, plain, cipher = struct.unpack(">B3xII", head)
        ok = head[1:4] == b"\0\0\0" and flags < 8 and plain <= MIB and cipher <= MIB + 16
        need(ok, f"{self.what}: frame {index} has an impossible head")
        return flags, plain, cipher + self.tag_bytes

    def open(self, index, head, body):
        """The plaintext of one frame. Its tag is compared before anything is decrypted."""
        flags, plain_bytes, _ = self.frame_bytes(head, index)
        cipher, tag = body[:-self.tag_bytes], body[-self.tag_bytes:]
        bound, number = self.bound + struct.pack(">Q", index) + head, struct.pack(">Q", index)
        if self.suite == 1:
            right = hmac.compare_digest(hmac_sha256(self.mac, bound + cipher), tag)
            need(right, f"{self.what}: frame {index} has a wrong tag (damaged or changed)")
            payload = self.p.aes.cbc(self.encrypt, self.p.aes.aes_block(self.iv, bytes(8) + number), cipher)
        else:
            payload = self.p.aes.gcm(self.encrypt, bytes(4) + number, bound, cipher, tag)
        need(payload is not None, f"{self.what}: frame {index} has a wrong tag (damaged or changed)")
        if flags & COMPRESSED:
            payload = self.p.zstd.decompress(payload, plain_bytes)
        need(payload is not None and len(payload) == plain_bytes, f"{self.what}: frame {index} has not its declared length")
        return payload


def read_stream(file, sealed, hasher):
    """The plaintexts of a stream of kind 2, 3 or 4, front to back. `hasher` sees every byte after the header."""
    index, last = 0, False
    while not last:
        head = file.read(FRAME_HEAD_BYTES)
        flags, _, rest = sealed.frame_bytes(head, index)
        body = file.read(rest)
        need(len(body) == rest, f"{sealed.what}: cut short in frame {index}")
        need(not flags & TABLE, f"{sealed.what}: a frame table outside a pack")
        hasher.update(head + body)
        yield sealed.open(index, head, body)
        index, last = index + 1, bool(flags & LAST)
    need(file.read(1) == b"", f"{sealed.what}: bytes after the last frame")


class Pack:
    """One pack in memory (section 3): its frame table, and any frame by number."""

    def __init__(self, data, sealed, digest_key):
        self.data, self.sealed, self.digest_key = data, sealed, digest_key
        need(len(data) >= HEADER_BYTES + TRAILER_BYTES, f"{sealed.what}: cut short")
        self.table_at, self.count = struct.unpack(">II", data[-TRAILER_BYTES:])
        flags, table, end = self._open(self.table_at, self.count)
        need(flags & ~COMPRESSED == LAST | TABLE and end == len(data) - TRAILER_BYTES and len(table) == 24 * self.count,
             f"{sealed.what}: the last frame is no frame table of {self.count} frames")
        self.entries = list(struct.iter_unpack(">II16s", table))

    def _open(self, at, index):
        head = self.data[at:at + FRAME_HEAD_BYTES]
        flags, _, rest = self.sealed.frame_bytes(head, index)
        body = self.data[at + FRAME_HEAD_BYTES:at + FRAME_HEAD_BYTES + rest]
        need(len(body) == rest, f"{self.sealed.what}: cut short in frame {index}")
        return flags, self.sealed.open(index, head, body), at + FRAME_HEAD_BYTES + rest

    def frame(self, index):
        """(plaintext, offset after the frame)."""
        need(index < self.count, f"{self.sealed.what}: the file list names frame {index} of {self.count}")
        offset, length, digest = self.entries[index]
        flags, plain, end = self._open(offset, index)
        right = not flags & (LAST | TABLE) and len(plain) == length and keyed_digest(self.digest_key, b"frame", plain) == digest
        need(right, f"{self.sealed.what}: frame {index} is not what the frame table says")
        return plain, end

    def verify(self):
        at = HEADER_BYTES
        for index in range(self.count):
            need(self.entries[index][0] == at, f"{self.sealed.what}: a gap before frame {index}")
            at = self.frame(index)[1]
        need(at == self.table_at, f"{self.sealed.what}: a gap before the frame table")


# ---- documents and keys: sections 5, 6, 8, 10 --------------------------------------------------------------------------------


def unbase64(text, length, what):
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        data = b""
    need(len(data) == length, f"{what}: not {length} bytes in base64")
    return data


def parse(text, form, what):
    """One JSON document of a known format and version that requires nothing unknown."""
    try:
        document = json.loads(text.decode("utf-8"))
    except ValueError:
        document = None
    need(isinstance(document, dict), f"{what}: not a JSON document (damaged, or not copied completely)")
    need(document.get("format") == form, f"{what}: format {document.get('format')!r} where {form!r} was expected")
    version, requires = document.get("version"), document.get("requires", [])
    need(version == VERSION and version is not True, f"{what}: format version {version}, this program reads {VERSION}", UNKNOWN)
    need(requires == [], f"{what}: needs a newer reader, for {requires}", UNKNOWN)
    return document


SIGNATURE_LINE = re.compile(rb'\{"signature":"([A-Za-z0-9+/]{86}==)","publicKey":"([A-Za-z0-9+/]{43}=)"\}')


def open_signed(primitives, data, public, form, what):
    """The payload of a signed document (section 10), its signature proven with the set's public key, never its own."""
    lines = data.split(b"\n")
    need(len(lines) == 3 and lines[2] == b"", f"{what}: not two complete lines (damaged, or not copied completely)")
    document = parse(lines[0], form, what)
    line = SIGNATURE_LINE.fullmatch(lines[1])
    need(line is not None, f"{what}: the signature line has another form")
    signature = unbase64(line[1], 64, what)
    ok = base64.b64encode(signature) == line[1] and line[2] == base64.b64encode(public)
    need(ok and primitives.verifies(public, signature, lines[0]), f"{what}: the signature does not hold (changed, or another set's)")
    return document


class Repository:
    """A folder with the objects of section 1, and the keys that the keyrings under it give."""

    def __init__(self, primitives, root, kek=None, public=None):
        self.p, self.root, self.kek = primitives, root, kek
        need(os.path.isdir(root), f"{root}: no such folder", UNKNOWN)
        need(os.path.exists(os.path.join(root, "tidemark.json")),
             f"{root}: no tidemark.json: not the top folder of a repository, or not copied completely", UNKNOWN)
        document = parse(self.read("tidemark.json"), "tidemark-repository", "tidemark.json")
        self.set_id = document["setId"]
        self.public = public or unbase64(document["publicKey"], 32, "tidemark.json: publicKey")
        self.data_keys, self.digest_key, self.keyrings, self.proven = {}, None, [], False
        if kek is not None:
            self._open_keyrings()

    def path(self, name):
        parts = name.split("/")
        ok = all(re.fullmatch(r"[A-Za-z0-9._=-]+", part) and part not in (".", "..") for part in parts)
        need(ok, f"{name!r}: no name of an object")
        return os.path.join(self.root, *parts)

    def open(self, name):
        try:
            return open(self.path(name), "rb")
        except FileNotFoundError:
            raise Refusal(DAMAGED, f"{name}: missing in {self.root} (not copied completely, or deleted)") from None

    def read(self, name):
        with self.open(name) as file:
            return file.read()

    def names(self, folder):
        path = self.path(folder)
        return sorted(os.listdir(path)) if os.path.isdir(path) else []

    def unwrap(self, wraps, purpose, what):
        """32 bytes out of the wrap for our key-encryption key (section 5); None where there is none for it."""
        kek_id = hkdf(self.kek, b"", b"tidemark kek id")[:8].hex()
        ours = [wrap for wrap in wraps if wrap.get("type") == "kek-aes-256-gcm" and wrap["kek"] == kek_id]
        if not ours:
            return None
        sealed, nonce = base64.b64decode(ours[0]["sealed"], validate=True), unbase64(ours[0]["nonce"], 12, what)
        bound = f"tidemark wrap {self.set_id} {purpose}".encode()
        secret = self.p.aes.gcm(hkdf(self.kek, b"", b"tidemark kek wrap"), nonce, bound, sealed[:-16], sealed[-16:])
        need(secret is not None and len(secret) == 32, f"{what}: the wrap of {purpose} does not open (changed)")
        return secret

    def _open_keyrings(self):
        """The union of all keyrings: a keyring of before a key rotation may have no wraps for our key, a newer one then has them."""
        names = [f"keys/{name}" for name in self.names("keys") if re.fullmatch(r"keyring-[0-9]+-[A-Za-z0-9_=]+\.json", name)]
        wanted = set()
        for name in names:
            try:
                wanted |= self._open_keyring(name)
            except Refusal as refusal:
                if refusal.code != DAMAGED:
                    raise
                say(f"WARNING: this keyring is not used: {refusal}")
        need(self.keyrings, "keys/: no keyring that can be trusted (not copied completely?)")
        kek_id = hkdf(self.kek, b"", b"tidemark kek id")[:8].hex()
        need(self.proven and self.digest_key, f"wrong key: the one given has id {kek_id}; this repository opens with {', '.join(sorted(wanted))}", KEY)

    def _open_keyring(self, name):
        """Adds one keyring's keys; returns the ids of the keys that open it. The wrapped signing key binds the public key to our
        key-encryption key, so that tidemark.json, which is not signed, need not be trusted."""
        data = self.read(name)
        ring = open_signed(self.p, data, self.public, "tidemark-keyring", name)
        need(ring["setId"] == self.set_id, f"{name}: the keyring of another set")
        signing = ring["signing"]
        need(unbase64(signing["publicKey"], 32, name) == self.public, f"{name}: names another public key than the set's")
        self.proven |= self.unwrap(signing["wraps"], f"signing-key {signing['publicKey']}", name) is not None
        digest_key = self.unwrap(ring["digestKey"]["wraps"], "digest-key", name) or self.digest_key
        need(self.digest_key in (None, digest_key), f"{name}: another digest key than an earlier keyring's")
        keys = {key["id"]: self.unwrap(key["wraps"], f"data-key {key['id']}", name) for key in ring["dataKeys"]}
        self.data_keys.update((key_id, key) for key_id, key in keys.items() if key)
        self.digest_key = digest_key
        self.keyrings.append((name, hashlib.sha256(data).hexdigest(), f"number {ring['number']}, created {ring['createdAt']}, opens "
                              f"{sum(map(bool, keys.values()))} of {len(keys)} data keys"))
        return {wrap["kek"] for wrap in signing["wraps"] if "kek" in wrap}

    def records(self):
        """(name of the cluster's folder, name of the record) of every record, in order of time."""
        found = []
        for cluster in self.names("clusters"):
            for system in self.names(f"clusters/{cluster}"):
                folder = f"clusters/{cluster}/{system}"
                found += [(folder, name) for name in self.names(f"{folder}/records") if name.endswith(".json")]
        return sorted(found, key=lambda entry: entry[1])

    def record(self, folder, name):
        what = f"{folder}/records/{name}"
        record = open_signed(self.p, self.read(what), self.public, "tidemark-backup", what)
        stopped = re.sub(r"[-:.]", "", record["stoppedAt"])
        right = f"clusters/{record['cluster']}/{record['systemId']}/records/{stopped}-{record['backupId']}.json"
        need(right == what and record["setId"] == self.set_id, f"{what}: a record that belongs elsewhere ({right})")
        return record


class Backup:
    """One committed backup: its record (section 8.1) and its pack table (section 7)."""

    def __init__(self, repository, backup_id):
        need(repository.kek is not None, "this needs the key: set BACKUP_ENCRYPTION_KEY or give --key-file", KEY)
        found = [entry for entry in repository.records() if entry[1].endswith(f"-{backup_id}.json")]
        need(re.fullmatch("[0-9a-f]{16}", backup_id) and found, f"no backup {backup_id} here; `list` shows what there is", UNKNOWN)
        need(len(found) == 1, f"{backup_id}: {len(found)} records name it", DAMAGED)
        self.r, self.p, self.id, self.folder = repository, repository.p, backup_id, found[0][0]
        self.record = repository.record(*found[0])
        hashes = {name: digest for name, digest, _ in repository.keyrings}
        ring = self.record["keyring"]
        if hashes.get(ring["name"]) != ring["sha256"]:  # no harm while another keyring has the keys
            say(f"NOTE: {ring['name']}, which the record names, is not here or is damaged")
        missing = set(self.record["dataKeys"]) - set(repository.data_keys)
        need(not missing, f"no keyring here has the data keys {sorted(missing)}", KEY)
        self._read_table()

    def _read_table(self):
        name = f"{self.folder}/base/{self.id}/packs.jsonl"
        data, table = self.r.read(name), self.record["packTable"]
        right = len(data) == table["bytes"] and hashlib.sha256(data).hexdigest() == table["sha256"]
        need(right, f"{name}: not the bytes that the record names (damaged, or not copied completely)")
        lines = data.decode("utf-8").split("\n")
        head, entries, end = parse(lines[0].encode(), "tidemark-packs", name), lines[1:-2], json.loads(lines[-2])
        need(lines[-1] == "" and head["backupId"] == self.id and end == {"end": len(entries)}, f"{name}: cut short")
        self.packs, self.lists, self.sources, self.wal, self.history = [], [], [], [], []
        kinds = {"pack": self.packs, "fileList": self.lists, "source": self.sources, "wal": self.wal, "history": self.history}
        for line in entries:
            (kind, value), *more = json.loads(line).items()
            alien = isinstance(value, dict) and set(value) - {"name", "bytes", "sha256", "salt", "streamId", "backup"}
            need(kind in kinds and not more and not alien, f"{name}: a line of an unknown kind: {line[:60]}", UNKNOWN)
            kinds[kind].append(value)
        need(self.lists and len(self.sources) == 1, f"{name}: no file list, or not one source document")

    def object_name(self, entry):
        return f"{self.folder}/base/{entry.get('backup', self.id)}/{entry['name']}"

    def seal_of(self, file, kind, identity, what, salt=None):
        header = file.read(HEADER_BYTES)
        return header, Sealed(self.p, header, kind, identity, self.r.data_keys, what, salt)

    def identity(self, entry, prefix):
        match = re.fullmatch(prefix + "-([0-9]{5,})", entry["name"])
        need(match, f"{entry['name']}: no name of a {prefix} object")
        return bytes.fromhex(entry.get("backup", self.id)) + struct.pack(">I", int(match[1]))

    def pack(self, number):
        """A pack by its number in the pack table, held against its size and SHA-256."""
        entry = self.packs[number]
        name = self.object_name(entry)
        with self.r.open(name) as file:
            data = file.read(entry["bytes"] + 1)
        right = len(data) == entry["bytes"] and hashlib.sha256(data).hexdigest() == entry["sha256"]
        need(right, f"{name}: not the bytes that the pack table names (damaged, or not copied completely)")
        identity = self.identity(entry, "pack")
        sealed = Sealed(self.p, data[:HEADER_BYTES], PACK, identity, self.r.data_keys, name, entry["salt"])
        return Pack(data, sealed, self.r.digest_key)

    def _plaintexts(self, entry, kind, identity):
        name, hasher = self.object_name(entry), hashlib.sha256()
        with self.r.open(name) as file:
            header, sealed = self.seal_of(file, kind, identity, name, entry["salt"])
            hasher.update(header)
            yield from read_stream(file, sealed, hasher)
            right = hasher.hexdigest() == entry["sha256"] and file.tell() == entry["bytes"]
        need(right, f"{name}: not the bytes that the pack table names")

    def source(self):
        entry = self.sources[0]
        text = b"".join(self._plaintexts(entry, OTHER, bytes.fromhex(entry["streamId"])))
        document = parse(text, "tidemark-source", self.object_name(entry))
        need(document["backupId"] == self.id, f"{self.object_name(entry)}: another backup's")
        return document

    def files(self):
        """The file list's entries (section 4), every rule of that section held: (type, mode, mtime, size, path, target, extents)."""
        for entry in self.lists:
            name, rest = self.object_name(entry), b""
            for plain in self._plaintexts(entry, FILE_LIST, self.identity(entry, "files")):
                rest, at = rest + plain, 0
                while len(rest) - at >= 28:
                    kind, zero, mode, mtime, size, path_bytes, target_bytes, count = struct.unpack_from(">BBHqQHHI", rest, at)
                    end = at + 28 + path_bytes + target_bytes + 24 * count
                    if end > len(rest):
                        break
                    path = rest[at + 28:at + 28 + path_bytes]
                    target = rest[at + 28 + path_bytes:at + 28 + path_bytes + target_bytes]
                    extents = list(struct.iter_unpack(">QIIII", rest[end - 24 * count:end]))
                    self._check_entry(name, kind, zero, mode, size, path, target, extents)
                    yield kind, mode, mtime, size, path, target, extents
                    at = end
                rest = rest[at:]
            need(rest == b"", f"{name}: ends within an entry")

    def _check_entry(self, name, kind, zero, mode, size, path, target, extents):
        shown, position = f"{name}: entry {path!r}", 0
        need(kind in (FILE, DIRECTORY, LINK) and zero == 0 and mode <= 0o7777, f"{shown}: unknown type or mode")
        need(b"\0" not in path + target and all(part not in (b"", b".", b"..") for part in path.split(b"/")),
             f"{shown}: not a safe relative path")
        need((kind == FILE or (size == 0 and not extents)) and (kind == LINK) == bool(target), f"{shown}: contradicts its type")
        for offset, length, pack, _, _ in extents:
            need(length > 0 and offset >= position and offset + length <= size and pack < len(self.packs),
                 f"{shown}: an extent out of order or out of bounds")
            position = offset + length

    def segments(self):
        """(object name, segment file name, identity) for every WAL segment; contiguous from the record's first to its last."""
        segment_bytes, found = self.record["server"]["walSegmentBytes"], []
        per_log = 0x100000000 // segment_bytes
        for relative in self.wal:
            match = re.fullmatch(r"wal/([0-9A-F]{8})/([0-9A-F]{8})/(\1\2([0-9A-F]{8}))-([0-9a-f]{32})", relative)
            need(match, f"{relative}: no name of a WAL segment")
            number = int(match[2], 16) * per_log + int(match[4], 16)
            identity = struct.pack(">QIQIII", int(self.record["systemId"]), int(match[1], 16), number, 0, segment_bytes, segment_bytes)
            found.append((f"{self.folder}/{relative}", match[3], identity + bytes.fromhex(match[5]), int(match[1], 16), number))
        found.sort(key=lambda segment: segment[1])
        numbers, names = [segment[4] for segment in found], [segment[1] for segment in found]
        wal = self.record["wal"]
        need(len(set(names)) == len(names), "two contents for one WAL segment: ask whoever runs this cluster which is right")
        need(found and names[0] == wal["first"] and names[-1] == wal["last"] and len(names) == wal["segments"]
             and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
             and all(segment[3] == self.record["timeline"] for segment in found),
             "the WAL in the pack table is not the range that the record names")
        first, last = lsn(self.record["startLsn"]) // segment_bytes, (lsn(self.record["stopLsn"]) - 1) // segment_bytes
        need(numbers[0] <= first and last <= numbers[-1], "the WAL does not cover the backup from start to stop")
        return [segment[:3] for segment in found]

    def wal_object(self, name, kind, identity, purpose, length, sink):
        """Streams a WAL segment or history file into `sink`, and holds its plaintext against the keyed digest (section 9)."""
        mac, total = hmac.new(self.r.digest_key, purpose, "sha256"), 0
        with self.r.open(name) as file:
            _, sealed = self.seal_of(file, kind, identity, name)
            for plain in read_stream(file, sealed, hashlib.sha256()):
                mac.update(plain)
                total += len(plain)
                sink(plain)
        right = mac.digest()[:16] == identity[-16:] and length in (None, total)
        need(right, f"{name}: its bytes are not those that its name promises")

    def write_wal(self, write):
        """Hands every WAL file of the backup to `write(file name)`, which gives a context with a write method."""
        segment_bytes = self.record["server"]["walSegmentBytes"]
        for name, file_name, identity in self.segments():
            with write(file_name) as file:
                self.wal_object(name, WAL, identity, b"wal", segment_bytes, file.write)
        for relative in self.history:
            match = re.fullmatch(r"wal/([0-9A-F]{8}\.history)-([0-9a-f]{32})", relative)
            need(match, f"{relative}: no name of a timeline history file")
            with write(match[1]) as file:
                self.wal_object(f"{self.folder}/{relative}", OTHER, bytes.fromhex(match[2]), b"history", None, file.write)


def lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


# ---- the restore -------------------------------------------------------------------------------------------------------------

# A copy must not act as its source: these files of the source are kept, but under a name that PostgreSQL does not read.
SET_ASIDE = {b"postgresql.conf", b"postgresql.auto.conf", b"pg_hba.conf", b"pg_ident.conf", b"standby.signal",
             b"recovery.signal", b"recovery.conf", b"postmaster.pid", b"tablespace_map"}
ASIDE, WAL_FOLDER, SPACE_FOLDER, CONTROL = b".source", b"tidemark_rescue_wal", b"tidemark_rescue_tablespaces", b"global/pg_control"


class Restore:
    """Lays out a data directory pack by pack: each pack is read once and its frames are scattered to their files."""

    def __init__(self, backup, directory, tablespaces, replay):
        self.replay = replay
        self.b, self.top = backup, os.fsencode(os.path.abspath(directory))
        self.mapped = {oid.encode(): os.fsencode(os.path.abspath(path)) for oid, path in tablespaces.items()}
        self.paths, self.modes, self.mtimes, self.sizes = [], array.array("H"), array.array("q"), array.array("Q")
        self.extents, self.directories, self.links, self.stored, self.spaces = {}, {}, [], 0, {}

    def place(self, path):
        """Where an entry goes: set aside, into a mapped tablespace, or below the top directory."""
        if path in SET_ASIDE:
            path += ASIDE
        parts = path.split(b"/", 2)
        if parts[0] == b"pg_tblspc" and len(parts) > 1 and parts[1] in self.mapped:
            return os.path.join(self.mapped[parts[1]], *parts[2:])
        return os.path.join(self.top, path + b".incomplete" if path == CONTROL else path)

    def plan(self):
        """Reads the whole file list before anything is written; an entry that it refuses leaves no trace."""
        seen, oids = {}, set()
        for kind, mode, mtime, size, path, target, extents in self.b.files():
            shown = os.fsdecode(path)
            if path.startswith(b"pg_tblspc/"):
                oids.add(path.split(b"/")[1])
            if kind == LINK:  # never made: PostgreSQL sends links for tablespaces only, and theirs lead to the source's files
                self.links.append((path, target))
                if path.startswith(b"pg_tblspc/"):
                    self.directories.setdefault(path, 0o700)
                continue
            name = path + ASIDE if path in SET_ASIDE else path
            need(name not in seen and not name.startswith((WAL_FOLDER, SPACE_FOLDER)), f"{shown}: two entries of one name")
            seen[name] = kind
            if kind == DIRECTORY:
                self.directories[path] = mode
                continue
            for offset, length, pack, frame, inner in extents:
                packed = struct.pack("=IQIII", len(self.paths), offset, length, frame, inner)
                self.extents.setdefault(pack, bytearray()).extend(packed)
                self.stored += length
            self.paths.append(path)
            self.modes.append(mode), self.mtimes.append(mtime), self.sizes.append(size)
        for path in list(seen):
            while b"/" in path:
                path = path.rsplit(b"/", 1)[0]
                need(seen.get(path, DIRECTORY) == DIRECTORY, f"{os.fsdecode(path)}: a file and a directory at once")
                self.directories.setdefault(path, 0o700)
        totals, counted = self.b.record["totals"], (len(self.paths), len(self.links))
        need(counted == (totals["files"], totals["links"]), f"the file list has {counted} files and links, the record other numbers")
        unknown = set(self.mapped) - oids
        need(not unknown, f"--tablespace: this backup has no tablespace {b', '.join(unknown).decode()}", USAGE)
        self._check_tablespaces(oids)
        for oid in oids - set(self.mapped):  # PostgreSQL wants links in pg_tblspc: it panics on directories there
            self.mapped[oid] = os.path.join(self.top, SPACE_FOLDER, oid)

    def _check_tablespaces(self, oids):
        """Replaying CREATE TABLESPACE uses the source's own path: where that is a directory in use, it would be adopted."""
        known = {str(space["oid"]): space for space in self.b.source()["tablespaces"]}
        for oid in sorted(set(known) | set(self.b.record["server"]["tablespaceOids"])):
            seen, location = known.get(oid, {}).get("seen", []), known.get(oid, {}).get("location")
            if oid.encode() in oids:
                self.spaces[oid] = location
            if "before" in seen and "wal" not in seen:
                continue
            created = f"tablespace {oid} was created while this backup ran, and its replay takes over {location or 'a path of the source'}"
            used = location and os.path.lexists(location) and not (os.path.isdir(location) and not os.listdir(location))
            need(not used, f"{created}, which is in use on this host. Restore on another host", TARGET)
            need(self.replay, f"{created}. On a host where no tablespace directory of the source exists, and never on the source's own, "
                 "say --replay-tablespaces; PostgreSQL then names the directory that it misses: create it, empty", TARGET)

    def _make_empty(self, path):
        try:
            os.makedirs(path, 0o700, exist_ok=True)
            need(not os.listdir(path), f"{os.fsdecode(path)}: not empty; nothing was changed", TARGET)
            os.chmod(path, 0o700)
        except OSError as error:
            raise Refusal(TARGET, f"{os.fsdecode(path)}: {error.strerror}") from None

    def run(self):
        self.plan()
        spaces = list(self.mapped.values())
        given = [self.top] + [place for place in spaces if not place.startswith(os.path.join(self.top, SPACE_FOLDER))]
        for place in given:
            others = [other for other in given if other is not place]
            apart = all(os.path.commonpath([os.path.realpath(place), os.path.realpath(other)]) != os.path.realpath(other)
                        for other in others)
            need(apart, f"{os.fsdecode(place)}: lies within another target", USAGE)
        for place in [self.top] + spaces:
            self._make_empty(place)
        wal_bytes = len(self.b.wal) * self.b.record["server"]["walSegmentBytes"]
        free = shutil.disk_usage(self.top).free
        enough = len(given) > 1 or free > self.stored + wal_bytes
        need(enough, f"{os.fsdecode(self.top)}: {size_text(self.stored + wal_bytes)} needed, {size_text(free)} free", TARGET)
        for path in sorted(self.directories):
            where = self.place(path)
            if where not in spaces:
                os.mkdir(where, 0o700)
        for oid, path in self.mapped.items():
            os.symlink(path, os.path.join(self.top, b"pg_tblspc", oid))
        for number, path in enumerate(self.paths):
            with self.create(self.place(path)) as file:
                file.truncate(self.sizes[number])
        for done, pack in enumerate(sorted(self.extents)):
            self._scatter(pack)
            progress("restoring", done + 1, len(self.extents))
        os.mkdir(os.path.join(self.top, WAL_FOLDER), 0o700)
        self.b.write_wal(lambda name: self.create(os.path.join(self.top, WAL_FOLDER, name.encode())))
        self._configure()
        self._finish()

    @staticmethod
    def create(path):
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb")

    def _scatter(self, number):
        pack, held, current, file = self.b.pack(number), (None, b""), None, None
        try:
            for entry, offset, length, frame, inner in struct.iter_unpack("=IQIII", self.extents[number]):
                if held[0] != frame:
                    held = (frame, pack.frame(frame)[0])
                need(inner + length <= len(held[1]), f"{os.fsdecode(self.paths[entry])}: an extent beyond its frame")
                if current != entry:
                    if file:
                        file.close()
                    current = entry
                    file = os.fdopen(os.open(self.place(self.paths[entry]), os.O_WRONLY | os.O_NOFOLLOW), "wb", 0)
                file.seek(offset)
                view = memoryview(held[1])[inner:inner + length]
                while view:
                    view = view[file.write(view):]
        finally:
            if file:
                file.close()

    def _configure(self):
        """A configuration of its own: socket only, archives nothing, replicates from nowhere, ends on a new timeline."""
        server = self.b.record["server"]
        folder = os.path.join(self.top, WAL_FOLDER)
        archive = os.fsdecode(folder).replace("%", "%%")
        self.socket = socket = self.top if len(self.top) < 80 else b"/tmp"  # PostgreSQL refuses socket paths beyond 107 bytes
        settings = {
            "listen_addresses": "", "unix_socket_directories": '"' + os.fsdecode(socket).replace('"', '""') + '"', "unix_socket_permissions": "0700",
            "restore_command": f"cp {shlex.quote(archive)}/%f %p", "recovery_target_timeline": "current",
            "recovery_target_action": "promote", "archive_mode": "off", "archive_command": "",
            "primary_conninfo": "", "primary_slot_name": "", "synchronous_standby_names": "",
            "max_logical_replication_workers": "0", "shared_preload_libraries": "", "logging_collector": "off",
            **server["minimumSettings"],
        }
        def line(name, value):
            return f"{name} = '" + str(value).replace("\\", "\\\\").replace("'", "''") + "'\n"
        text = "# Written by tidemark_rescue.py: an isolated copy. The source's own files are beside this one, with .source at the end.\n"
        text += "".join(line(name, value) for name, value in settings.items())
        need("\n" not in archive, "the directory's name has a line break", USAGE)
        hba = "local all all trust\n# the socket lies in this directory, which only its owner can enter\n"
        if socket != self.top:
            hba = "local all all peer\n"
        for name, content in (("postgresql.conf", text), ("pg_hba.conf", hba), ("pg_ident.conf", ""), ("postgresql.auto.conf", ""),
                              ("recovery.signal", "")):
            with self.create(os.path.join(self.top, name.encode())) as file:
                file.write(os.fsencode(content))

    def _finish(self):
        """Modes, times, fsync; then pg_control gets its name. Until then PostgreSQL refuses to start on this directory."""
        for number, path in enumerate(self.paths):
            handle = os.open(self.place(path), os.O_WRONLY | os.O_NOFOLLOW)
            try:
                os.fchmod(handle, self.modes[number] & 0o777)
                os.utime(handle, (self.mtimes[number], self.mtimes[number]))
                os.fsync(handle)
            finally:
                os.close(handle)
        for path, mode in self.directories.items():
            os.chmod(self.place(path), mode & 0o777)
        for root in [self.top] + list(self.mapped.values()):
            sync(os.path.dirname(root))
            for folder, _, names in os.walk(root):
                for name in names if folder in (self.top, os.path.join(self.top, WAL_FOLDER)) else []:
                    sync(os.path.join(folder, name))
                sync(folder)
        missing = [name for name in (CONTROL, b"backup_label", b"PG_VERSION") if name not in set(self.paths)]
        need(not missing, f"everything is laid out, but this is no cluster that can start: {missing[0].decode() if missing else ''} "
             "is not in the backup")
        control = self.place(CONTROL)
        os.rename(control, control[:-len(b".incomplete")])
        sync(os.path.dirname(control))


def sync(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---- the verbs ---------------------------------------------------------------------------------------------------------------


def say(text):
    print(text, file=sys.stderr, flush=True)


def version_of(record):
    number = record["server"]["versionNum"]
    return f"{number // 10000}.{number % 10000}"


def progress(verb, done, total):
    if done == total or done % max(1, total // 20) == 0:
        say(f"{verb}: {done} of {total} packs")


def size_text(count):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count} B"
        count /= 1024
    return f"{count:.1f} TiB"


def list_backups(repository):
    """Every record, oldest first; one that does not verify is shown as such, and makes the exit code 5."""
    bad, records = 0, repository.records()
    for folder, name in records:
        try:
            record = repository.record(folder, name)
        except Refusal as refusal:
            bad += 1
            print(f"UNTRUSTED {folder}/records/{name}: {refusal}")
            continue
        totals = record["totals"]
        there = os.path.exists(repository.path(f"{folder}/base/{record['backupId']}/packs.jsonl"))
        print(f"{record['backupId']}  {record['stoppedAt']}  {record['cluster']}  system {record['systemId']}  PostgreSQL "
              f"{version_of(record)}  timeline {record['timeline']}  {size_text(totals['bytes'])} in {totals['files']} files  "
              f"{record['verdict']}{'' if there else '  (its pack table is missing here)'}")
    say(f"{len(records) - bad} backups, {bad} untrusted records")
    need(not bad, f"{bad} records do not verify")


def verify(backup):
    """Every byte of the backup: signatures, SHA-256, tags, digests, the file list's rules, the WAL range."""
    lengths = []
    for number in range(len(backup.packs)):
        pack = backup.pack(number)
        pack.verify()
        lengths.append(array.array("I", (entry[1] for entry in pack.entries)))
        progress("verifying", number + 1, len(backup.packs))
    counts = {FILE: 0, DIRECTORY: 0, LINK: 0}
    paths, total = set(), 0
    for kind, _, _, size, path, _, extents in backup.files():
        need(path not in paths, f"{os.fsdecode(path)}: two entries of one name")
        paths.add(path)
        counts[kind] += 1
        total += size
        for _, length, pack, frame, inner in extents:
            ok = frame < len(lengths[pack]) and inner + length <= lengths[pack][frame]
            need(ok, f"{os.fsdecode(path)}: an extent beyond its frame")
    totals = backup.record["totals"]
    same = (counts[FILE], counts[DIRECTORY], counts[LINK], total) == tuple(totals[k] for k in ("files", "directories", "links", "bytes"))
    need(same, "the file list does not have the totals of the record")
    backup.source()
    if backup.record["verdict"] != "intact":
        say(f"NOTE: stored as it was taken, but the server reported damaged pages then: {backup.record['damage']}")
    backup.write_wal(lambda name: open(os.devnull, "wb"))
    print(f"{backup.id}: {counts[FILE]} files, {size_text(total)}, {len(backup.packs)} packs, {len(backup.wal)} WAL segments: all verified")


def print_configuration(backup):
    document = backup.source()
    for entry in document["configuration"]:
        content = entry["content"]
        print(f"######## {entry['kind']} {entry['path']}")
        print("# (in the data directory; see the restored file)" if content is None
              else base64.b64decode(content, validate=True).decode("utf-8", "backslashreplace"))
    for entry in document["unread"]:
        print(f"######## could not be read: {json.dumps(entry)}")
    print("######## settings that differed from PostgreSQL's defaults")
    for setting in document["settings"]:
        print(f"# {setting['name']} = {setting['value']!r} {setting.get('unit') or ''}  ({setting.get('file') or setting.get('source')})")
    for name in ("tablespaces", "databases", "extensions"):
        print(f"######## {name}")
        for entry in document[name]:
            print("# " + json.dumps(entry, ensure_ascii=False))


def restore(backup, arguments):
    if backup.record["verdict"] != "intact":
        need(arguments.damaged, f"the server reported damaged pages while it was copied: {backup.record['damage']}. "
             "Choose another backup, or say --damaged to restore it anyway")
    spaces = {}
    for text in arguments.tablespace:
        match = re.fullmatch(r"([0-9]+)=(/.+)", text)
        need(match and match[1] not in spaces, f"--tablespace {text}: give OID=/absolute/directory, each once", USAGE)
        spaces[match[1]] = match[2]
    work = Restore(backup, arguments.directory, spaces, arguments.replay_tablespaces)
    work.run()
    for path, target in work.links:
        say(f"NOTE: the link {os.fsdecode(path)} to {os.fsdecode(target)} was not made")
    for oid, place in work.spaces.items():
        say(f"NOTE: tablespace {oid}, on the source in {place or '(unknown)'}, is in {os.fsdecode(work.place(b'pg_tblspc/' + oid.encode()))}")
    libraries = backup.record["server"]["preloadLibraries"]
    if libraries:
        say(f"NOTE: the source preloaded {', '.join(libraries)}. If recovery asks for one, install it and add it to shared_preload_libraries")
    top = os.fsdecode(work.top)
    say(f"restored to {top}. Start it as its owner (root: chown -R postgres first), with PostgreSQL {version_of(backup.record)} "
        f"or a later minor version of it:\n  pg_ctl -D {shlex.quote(top)} -l {shlex.quote(top)}/tidemark_rescue.log -w -t 86400 start\n"
        f"  psql -h {shlex.quote(os.fsdecode(work.socket))} postgres")


def read_kek(path):
    """The key-encryption key, 32 bytes, as 64 hex digits or base64; None where none is given."""
    text = os.environ.get("BACKUP_ENCRYPTION_KEY", "")
    if path:
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                text = file.read()
        except OSError as error:
            raise Refusal(KEY, f"{path}: {error.strerror}") from None
    text = text.strip()
    if not text:
        return None
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    need(re.fullmatch("[A-Za-z0-9+/_-]{43}=?", text), "the key is neither 64 hex digits nor base64 of 32 bytes", KEY)
    return base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_")[:43] + "=")


def main(arguments):
    parser = argparse.ArgumentParser(prog="tidemark_rescue.py", description="Open Tidemark backups with this one file.",
                                     epilog="exit codes: 2 usage, 3 key, 4 not found or unknown version, 5 damaged, 6 target")
    parser.add_argument("--repository", default=".", help="folder with tidemark.json in it (default: here)")
    parser.add_argument("--key-file", help="file with the key; else BACKUP_ENCRYPTION_KEY")
    parser.add_argument("--public-key", help="the set's public key in base64, if you hold it; else the one in tidemark.json")
    parser.add_argument("--zstd-command", action="store_true", help="use the command zstd even where libzstd is there")
    parser.add_argument("--unsigned", action="store_true", help="go on where this host cannot check signatures at all")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="all backups, oldest first; works without the key")
    verbs.add_parser("keyring", help="prove that the key opens this repository")
    for name, text in (("verify", "read and check every byte of a backup"), ("configuration", "print the captured configuration"),
                       ("restore", "lay out a data directory that PostgreSQL can start on")):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("backup", help="16 hex digits, from list")
        if name == "restore":
            verb.add_argument("directory", help="new or empty directory")
            verb.add_argument("--tablespace", action="append", default=[], metavar="OID=DIR", help="else below the directory")
            verb.add_argument("--replay-tablespaces", action="store_true", help="for a backup that a CREATE TABLESPACE fell into")
            verb.add_argument("--damaged", action="store_true", help="restore a backup with the verdict damaged")
    options = parser.parse_args(arguments)
    primitives = Primitives(options.zstd_command, options.unsigned)
    say(f"computing with {primitives.aes.label} and {primitives.zstd.label}")
    public = unbase64(options.public_key, 32, "--public-key") if options.public_key else None
    kek = read_kek(options.key_file)
    repository = Repository(primitives, options.repository, kek, public)
    proof = "proven by the key" if kek else "taken from --public-key" if public else "NOT proven: taken from tidemark.json, no key given"
    say(f"repository set {repository.set_id}; public key {base64.b64encode(repository.public).decode()} ({proof})")
    if options.verb == "list":
        list_backups(repository)
    elif options.verb == "keyring":
        need(kek is not None, "give the key: BACKUP_ENCRYPTION_KEY or --key-file", KEY)
        for name, _, text in repository.keyrings:
            print(f"{name}: signature holds, {text}")
        print(f"data keys: {', '.join(sorted(repository.data_keys))}")
    elif options.verb == "verify":
        verify(Backup(repository, options.backup))
    elif options.verb == "configuration":
        print_configuration(Backup(repository, options.backup))
    else:
        restore(Backup(repository, options.backup), options)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr.reconfigure(errors="backslashreplace")
    try:
        main(sys.argv[1:])
    except Refusal as refusal:
        say(f"REFUSED: {refusal}")
        sys.exit(refusal.code)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error) as error:
        say(f"REFUSED: a document has not the form that docs/repository-format.md gives it: {type(error).__name__}: {error}")
        sys.exit(DAMAGED)
    except OSError as error:
        say(f"REFUSED: {error}")
        sys.exit(TARGET)
    except KeyboardInterrupt:
        say("interrupted: delete what was restored so far, and start again")
        sys.exit(130)
