#!/usr/bin/env python3
"""Opens Tidemark backups without Tidemark: one file, for a host that has nothing but Python.

Needs Python 3.9, the repository as a folder (a file:// repository, or a bucket copied with `aws s3 sync` or rclone) and the
key-encryption key in BACKUP_ENCRYPTION_KEY or --key-file. It loads libcrypto (the one that Python itself is linked to), and
libzstd, else the command zstd; what is used is printed first. (The openssl command is no substitute: it has no GCM, and shows
keys in the process list.) docs/rescue.md tells how to go from here to a running PostgreSQL.

Written from docs/repository-format.md alone; "section n" means that page. It reads only, and sends nothing anywhere.
Nothing that a signature or tag covers is parsed before that holds, and nothing is read beyond the size that it may have.
Memory: one pack (16 MiB unless configured otherwise), 24 bytes an extent, and one small entry a file.

Exit codes: 0 done; 2 wrong usage; 3 the key is missing or wrong; 4 there is no such repository, backup or format version that
this program knows; 5 the backup is damaged, incomplete or not authentic; 6 the target directory cannot be used; 7 the backup is
as it was stored, but was taken of a damaged source, and so is no restorable point.
"""

import argparse
import array
import base64
import ctypes
import ctypes.util
import hashlib
import hmac
import io
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import threading

USAGE, KEY, UNKNOWN, DAMAGED, TARGET, NO_POINT = 2, 3, 4, 5, 6, 7
VERSION, MIB = 1, 1 << 20
HEADER_BYTES, FRAME_HEAD_BYTES, TRAILER_BYTES = 160, 12, 8
PACK, FILE_LIST, WAL, OTHER = 1, 2, 3, 4
COMPRESSED, LAST, TABLE = 1, 2, 4
FILE, DIRECTORY, LINK = 1, 2, 3
DOCUMENT_BYTES, PACK_BYTES = 16 * MIB, 1 << 32  # more than any that is written: offsets in packs have 32 bits
# What a document of another form than the page's ends in.
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error, RecursionError, MemoryError)

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
        self.unsigned, self.unchecked = unsigned, False
        try:
            self.aes = LibCrypto()
        except (OSError, AttributeError):
            raise Refusal(USAGE, "no libcrypto 1.1.1 or newer on this host: install the package libssl3 (docs/rescue.md)") from None
        try:
            self.zstd = ZstdCommand() if zstd_command else LibZstd()
        except (OSError, AttributeError):
            self.zstd = ZstdCommand()

    def verifies(self, public, signature, message):
        """Also true where nothing can be checked, and --unsigned was said."""
        answer = self.aes.ed25519(public, signature, message)
        need(answer is not None or self.unsigned, "this host's libcrypto has no Ed25519 (FIPS mode?), so no signature can be checked. "
             "Use another host, or say --unsigned to go on: records could then have been changed", USAGE)
        self.unchecked = self.unchecked or answer is None
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

    def __init__(self, primitives, header, kind, identity, key_of, what, salt=None):
        need(len(header) == HEADER_BYTES and header[:8] == b"TIDEMARK", f"{what}: no sealed stream (cut short, or another file)")
        version, suite, has_kind, zero = struct.unpack(">HBBI", header[8:16])
        need(version == VERSION, f"{what}: format version {version}, this program reads {VERSION}", UNKNOWN)
        need(suite in (1, 2), f"{what}: unknown suite {suite}", UNKNOWN)
        key_id = header[16:32].hex()
        data_key = key_of(key_id)
        need(data_key, f"{what}: sealed with data key {key_id}, which no keyring here opens with this key", KEY)
        self.p, self.what, self.suite, self.bound = primitives, what, suite, header[:128]

        def derive(role):
            return hkdf(data_key, header[32:64], b"tidemark" + struct.pack(">HB", version, suite) + role)
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

def read_stream(file, sealed, limit, hasher=None):
    """The plaintexts of a stream of kind 2, 3 or 4, front to back, of at most `limit` bytes in all. `hasher` sees what follows the header."""
    index, last, total = 0, False, 0
    while not last:
        head = file.read(FRAME_HEAD_BYTES)
        flags, plain, rest = sealed.frame_bytes(head, index)
        body, total = file.read(rest), total + plain
        need(len(body) == rest, f"{sealed.what}: cut short in frame {index}")
        need(not flags & TABLE, f"{sealed.what}: a frame table outside a pack")
        need(total <= limit, f"{sealed.what}: more than {limit} bytes")
        if hasher:
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
    except (ValueError, RecursionError, MemoryError):
        document = None
    need(isinstance(document, dict), f"{what}: not a JSON document (damaged, or not copied completely)")
    need(document.get("format") == form, f"{what}: format {document.get('format')!r:.60} where {form!r} was expected")
    version, requires = document.get("version"), document.get("requires", [])
    need(version == VERSION and type(version) is int, f"{what}: format version {version!r:.60}, this program reads {VERSION}", UNKNOWN)
    need(requires == [], f"{what}: needs a newer reader, for {requires!r:.200}", UNKNOWN)
    return document

SIGNATURE_LINE = re.compile(rb'\{"signature":"([A-Za-z0-9+/]{86}==)","publicKey":"([A-Za-z0-9+/]{43}=)"\}')

def open_signed(primitives, data, public, form, what):
    """The payload of a signed document (section 10), parsed once its signature has held with the set's public key, never its own."""
    lines = data.split(b"\n", 2)
    need(len(lines) == 3 and lines[2] == b"", f"{what}: not two complete lines (damaged, or not copied completely)")
    line = SIGNATURE_LINE.fullmatch(lines[1])
    need(line is not None, f"{what}: the signature line has another form")
    signature = unbase64(line[1], 64, what)
    ok = base64.b64encode(signature) == line[1] and line[2] == base64.b64encode(public)
    need(ok and primitives.verifies(public, signature, lines[0]), f"{what}: the signature does not hold (changed, or another set's)")
    return parse(lines[0], form, what)

class Repository:
    """A folder with the objects of section 1, and the keys that the keyrings under it give. Other names are passed over."""

    def __init__(self, primitives, root, kek=None, public=None):
        self.p, self.root, self.kek = primitives, root, kek
        need(os.path.isdir(root), f"{root}: no such folder", UNKNOWN)
        need(os.path.exists(os.path.join(root, "tidemark.json")),
             f"{root}: no tidemark.json: not the top folder of a repository, or not copied completely", UNKNOWN)
        document = parse(self.read("tidemark.json", MIB), "tidemark-repository", "tidemark.json")
        self.set_id, self.public = document["setId"], unbase64(document["publicKey"], 32, "tidemark.json: publicKey")
        need(public in (None, self.public), "tidemark.json: names another public key than --public-key (changed, or another set's)")
        self.keyrings, self.wraps, self.digest_key = [], {}, None
        if kek is not None:
            self.kek_id = hkdf(kek, b"", b"tidemark kek id")[:8].hex()
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
        except (IsADirectoryError, NotADirectoryError):
            raise Refusal(DAMAGED, f"{name}: a folder where an object was expected, or the other way about") from None

    def read(self, name, limit=DOCUMENT_BYTES):
        with self.open(name) as file:
            data = file.read(limit + 1)
        need(len(data) <= limit, f"{name}: more than {limit} bytes")
        return data

    def names(self, folder, grammar):
        path = self.path(folder)
        return sorted(name for name in os.listdir(path) if re.fullmatch(grammar, name)) if os.path.isdir(path) else []

    def unwrap(self, purpose):
        """32 bytes out of the wraps of all keyrings for one purpose (section 5); None where there is none for our key-encryption key."""
        found, tried = set(), 0
        for wrap in self.wraps.get(purpose, []):
            if wrap.get("type") != "kek-aes-256-gcm" or wrap.get("kek") != self.kek_id:
                continue
            sealed, nonce = base64.b64decode(wrap["sealed"], validate=True), unbase64(wrap["nonce"], 12, purpose)
            bound, tried = f"tidemark wrap {self.set_id} {purpose}".encode(), tried + 1
            secret = self.p.aes.gcm(hkdf(self.kek, b"", b"tidemark kek wrap"), nonce, bound, sealed[:-16], sealed[-16:])
            found |= {secret} if secret is not None and len(secret) == 32 else set()
        need(found or not tried, f"keys/: the wrap of {purpose} does not open (changed)")
        need(len(found) < 2, f"keys/: {len(found)} different keys for {purpose}")
        return found.pop() if found else None

    def data_key(self, key_id):
        return self.unwrap(f"data-key {key_id}")

    def data_key_ids(self):
        return sorted(purpose[9:] for purpose in self.wraps if purpose.startswith("data-key "))

    def _open_keyrings(self):
        """Joins the wraps of all keyrings that count. The wrapped signing key binds the public key to our key-encryption key, so that
        tidemark.json, which is not signed, need not be trusted."""
        for name in self.names("keys", r"keyring-[0-9]{1,9}-[0-9a-f]+\.json"):
            try:
                self._read_keyring(f"keys/{name}")
            except (Refusal,) + MALFORMED as error:
                # One that is signed and of an unknown version binds the set; unsigned, it could be anybody's.
                if isinstance(error, Refusal) and error.code == UNKNOWN and not self.p.unchecked:
                    raise
                say(f"WARNING: keys/{name} is not used: {error}")
        need(self.keyrings, "keys/: no keyring that can be trusted (not copied completely?)")
        purpose = f"signing-key {base64.b64encode(self.public).decode()}"
        wanted = sorted({str(wrap.get("kek")) for wrap in self.wraps.get(purpose, [])})
        self.digest_key = self.unwrap("digest-key")
        need(self.unwrap(purpose) and self.digest_key,
             f"wrong key: the one given has id {self.kek_id}; this repository opens with {', '.join(wanted)}", KEY)

    def _read_keyring(self, name):
        data = self.read(name)
        ring = open_signed(self.p, data, self.public, "tidemark-keyring", name)
        need(ring["setId"] == self.set_id, f"{name}: the keyring of another set")
        number = ring["number"]
        need(type(number) is int and number == int(name.split("-")[1]), f"{name}: number {number} under another's name")
        wraps = {f"data-key {key['id']}": key["wraps"] for key in ring["dataKeys"]}
        wraps.update((f"signing-key {key['publicKey']}", key["wraps"]) for key in ring["signing"])
        wraps["digest-key"] = ring["digestKey"]["wraps"]
        need(all(isinstance(wrap, dict) for several in wraps.values() for wrap in several), f"{name}: a wrap of another form")
        for purpose, several in wraps.items():
            self.wraps.setdefault(purpose, []).extend(several)
        self.keyrings.append((name, hashlib.sha256(data).hexdigest(), f"number {number}, created {ring['createdAt']}"))

    def records(self):
        """(name of the cluster's folder, name of the record) of every record, in order of time."""
        found = []
        for cluster in self.names("clusters", "[a-z0-9][a-z0-9-]{0,47}"):
            for system in self.names(f"clusters/{cluster}", "[0-9]{1,20}"):
                folder = f"clusters/{cluster}/{system}"
                found += [(folder, name) for name in self.names(f"{folder}/records", r"[0-9]{8}T[0-9]{9}Z-[0-9a-f]{16}\.json")]
        return sorted(found, key=lambda entry: entry[1])

    def record(self, folder, name):
        what = f"{folder}/records/{name}"
        record = open_signed(self.p, self.read(what), self.public, "tidemark-backup", what)
        try:
            stopped = re.sub(r"[-:.]", "", record["stoppedAt"])
            right = f"clusters/{record['cluster']}/{record['systemId']}/records/{stopped}-{record['backupId']}.json"
        except MALFORMED:
            right = "it names none"
        need(right == what and record.get("setId") == self.set_id, f"{what}: a record that belongs elsewhere ({right})")
        return record

    def record_of(self, backup_id):
        """(folder, record) of one backup. Anybody can put a copy of its record under another name: only the one at its own place counts."""
        names, good, refusals = [entry for entry in self.records() if entry[1][20:36] == backup_id], [], []
        need(names, f"no backup {backup_id} here; `list` shows what there is", UNKNOWN)
        for folder, name in names:
            try:
                good.append((folder, self.record(folder, name)))
            except Refusal as refusal:
                refusals.append(refusal)
        need(len(good) < 2, f"{backup_id}: {len(good)} records are signed for it")
        if not good:
            raise max(refusals, key=lambda refusal: refusal.code == UNKNOWN)
        for refusal in refusals:
            say(f"WARNING: passed over: {refusal}")
        return good[0]

def sized(entry, limit=PACK_BYTES):
    """The member `bytes` of a document, if it can be a size at all."""
    need(type(entry["bytes"]) is int and 0 <= entry["bytes"] <= limit, f"{entry['bytes']!r} is no size of an object")
    return entry["bytes"]

class Backup:
    """One committed backup: its record (section 8.1) and its pack table (section 7)."""

    def __init__(self, repository, backup_id):
        need(repository.kek is not None, "this needs the key: set BACKUP_ENCRYPTION_KEY or give --key-file", KEY)
        self.r, self.p, self.id = repository, repository.p, backup_id
        self.folder, self.record = repository.record_of(backup_id)
        ring = self.record["keyring"]
        if (ring["name"], ring["sha256"]) not in [known[:2] for known in repository.keyrings]:  # no harm while another has the keys
            say(f"NOTE: {ring['name']}, which the record names, is not here or is damaged")
        missing = sorted(key for key in self.record["dataKeys"] if not repository.data_key(key))
        need(not missing, f"no keyring here opens the data keys {missing} with this key", KEY)
        self._read_table()

    def damage(self):
        """Why this backup is no restorable point, or None. A verdict that this version does not know is no `intact` either."""
        record = self.record
        return None if record["verdict"] == "intact" else f"the server reported a damaged source ({record['verdict']}: {record['damage']})"

    def _read_table(self):
        name, table = f"{self.folder}/base/{self.id}/packs.jsonl", self.record["packTable"]
        data = self.r.read(name, sized(table))
        right = len(data) == table["bytes"] and hashlib.sha256(data).hexdigest() == table["sha256"]
        need(right, f"{name}: not the bytes that the record names (damaged, or not copied completely)")
        lines = data.decode("utf-8").split("\n")
        head, entries, end = parse(lines[0].encode(), "tidemark-packs", name), lines[1:-2], json.loads(lines[-2])
        need(lines[-1] == "" and head["backupId"] == self.id and end == {"end": len(entries)}, f"{name}: cut short")
        self.packs, self.lists, self.sources, self.wal, self.history = [], [], [], [], []
        kinds = {"pack": self.packs, "fileList": self.lists, "source": self.sources, "wal": self.wal, "history": self.history}
        more = {"pack": {"backup"}, "source": {"streamId"}}
        order, before = list(kinds), 0
        for line in entries:
            (kind, value), *others = json.loads(line).items()
            need(kind in kinds and not others, f"{name}: a line of an unknown kind: {line[:60]}", UNKNOWN)
            need(order.index(kind) >= before, f"{name}: a {kind} out of order")
            before = order.index(kind)
            if kind in ("wal", "history"):
                need(isinstance(value, str), f"{name}: no name of a {kind} object: {line[:60]}")
            else:
                members, plain = set(value), {"name", "bytes", "sha256", "salt"}
                right = plain <= members <= plain | more.get(kind, set()) and (kind != "source" or "streamId" in members)
                need(right, f"{name}: a line with other members: {line[:60]}", UNKNOWN)
                sized(value)
            kinds[kind].append(value)
        need(self.lists and len(self.sources) == 1, f"{name}: no file list, or not one source document")
        need(len(set(self.history)) == len(self.history), f"{name}: one history file twice")

    def object_name(self, entry):
        return f"{self.folder}/base/{entry.get('backup', self.id)}/{entry['name']}"

    def identity(self, entry, prefix, ordinal=None):
        match = re.fullmatch(prefix + "-([0-9]{5,10})", entry["name"])
        number = int(match[1]) if match else 0
        need(number > 0 and ordinal in (None, number), f"{entry['name']}: not the name of a {prefix} object that belongs here")
        return bytes.fromhex(entry.get("backup", self.id)) + struct.pack(">I", number)

    def pack(self, number):
        """A pack by its number in the pack table, held against its size and SHA-256."""
        entry = self.packs[number]
        name = self.object_name(entry)
        with self.r.open(name) as file:
            data = file.read(entry["bytes"] + 1)
        right = len(data) == entry["bytes"] and hashlib.sha256(data).hexdigest() == entry["sha256"]
        need(right, f"{name}: not the bytes that the pack table names (damaged, or not copied completely)")
        sealed = Sealed(self.p, data[:HEADER_BYTES], PACK, self.identity(entry, "pack"), self.r.data_key, name, entry["salt"])
        return Pack(data, sealed, self.r.digest_key)

    def _plaintexts(self, entry, kind, identity):
        name, hasher = self.object_name(entry), hashlib.sha256()
        with self.r.open(name) as file:
            need(os.fstat(file.fileno()).st_size == entry["bytes"], f"{name}: not the size that the pack table names")
            header = file.read(HEADER_BYTES)
            sealed = Sealed(self.p, header, kind, identity, self.r.data_key, name, entry["salt"])
            hasher.update(header)
            yield from read_stream(file, sealed, PACK_BYTES, hasher)
        need(hasher.hexdigest() == entry["sha256"], f"{name}: not the bytes that the pack table names")

    def source(self):
        entry = self.sources[0]
        text = b"".join(self._plaintexts(entry, OTHER, bytes.fromhex(entry["streamId"])))
        document = parse(text, "tidemark-source", self.object_name(entry))
        need(document["backupId"] == self.id, f"{self.object_name(entry)}: another backup's")
        return document

    def files(self):
        """The file list's entries (section 4), every rule of that section held: (type, mode, mtime, size, path, target, extents)."""
        for number, entry in enumerate(self.lists):
            name, rest = self.object_name(entry), b""
            for plain in self._plaintexts(entry, FILE_LIST, self.identity(entry, "files", number + 1)):
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
            need(match and int(match[4], 16) < per_log, f"{relative}: no name of a WAL segment")
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

    def wal_object(self, name, kind, identity, purpose, limit, sink):
        """Streams a WAL segment or history file into `sink`, and holds its plaintext against the keyed digest (section 9)."""
        mac, total = hmac.new(self.r.digest_key, purpose, "sha256"), 0
        with self.r.open(name) as file:
            sealed = Sealed(self.p, file.read(HEADER_BYTES), kind, identity, self.r.data_key, name)
            for plain in read_stream(file, sealed, limit):
                mac.update(plain)
                total += len(plain)
                sink(plain)
        right = mac.digest()[:16] == identity[-16:] and (kind != WAL or total == limit)
        need(right, f"{name}: its bytes are not those that its name promises")

    def write_wal(self, write):
        """Hands every WAL file of the backup to `write(file name)`, which gives a context with a write method."""
        segment_bytes, system_id = self.record["server"]["walSegmentBytes"], int(self.record["systemId"])
        for name, file_name, identity in self.segments():
            with write(file_name) as file:
                self.wal_object(name, WAL, identity, b"wal", segment_bytes, file.write)
        for relative in self.history:
            match = re.fullmatch(r"wal/(([0-9A-F]{8})\.history)-([0-9a-f]{32})", relative)
            need(match, f"{relative}: no name of a timeline history file")
            purpose = b"history" + struct.pack(">QI", system_id, int(match[2], 16))
            with write(match[1]) as file:
                self.wal_object(f"{self.folder}/{relative}", OTHER, bytes.fromhex(match[3]), purpose, DOCUMENT_BYTES, file.write)

def lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)

# ---- the restore -------------------------------------------------------------------------------------------------------------

# A copy must not act as its source: these files of the source are kept, but under a name that PostgreSQL does not read.
SET_ASIDE = {b"postgresql.conf", b"postgresql.auto.conf", b"pg_hba.conf", b"pg_ident.conf", b"standby.signal",
             b"recovery.signal", b"recovery.conf", b"postmaster.pid", b"postmaster.opts", b"tablespace_map"}
ASIDE, WAL_FOLDER, SPACE_FOLDER, CONTROL = b".source", b"tidemark_rescue_wal", b"tidemark_rescue_tablespaces", b"global/pg_control"
# Recovery stops where one of these is lower than on the source. No other name may come from a record into the configuration.
MINIMUM = {"max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions", "max_locks_per_transaction"}
NEW, FOLDER = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

class Restore:
    """Lays out a data directory pack by pack: each pack is read once and its frames are scattered to their files.

    Every file is opened beneath a handle of a directory that was found empty, is ours, and lets nobody else in: whoever can
    rename directories above it, or prepared it, leads no byte elsewhere.
    """

    def __init__(self, backup, directory, tablespaces, replay):
        self.replay = replay
        self.b, self.top = backup, os.fsencode(os.path.realpath(directory))
        self.mapped = {oid.encode(): os.fsencode(os.path.realpath(path)) for oid, path in tablespaces.items()}
        self.paths, self.modes, self.mtimes, self.sizes = [], array.array("H"), array.array("q"), array.array("Q")
        self.extents, self.directories, self.links, self.stored, self.spaces, self.handles = {}, {}, [], 0, {}, {}

    def place(self, path):
        """Where an entry goes, as (root, path beneath it): set aside, into a mapped tablespace, or below the top directory."""
        if path in SET_ASIDE:
            path += ASIDE
        parts = path.split(b"/", 2)
        if parts[0] == b"pg_tblspc" and len(parts) > 1 and parts[1] in self.mapped:
            return self.mapped[parts[1]], parts[2] if len(parts) > 2 else b""
        return self.top, path + b".incomplete" if path == CONTROL else path

    def plan(self):
        """Reads the whole file list before anything is written; an entry that it refuses leaves no trace."""
        seen, oids = {}, set()
        for kind, mode, mtime, size, path, target, extents in self.b.files():
            shown = os.fsdecode(path)
            space = re.fullmatch(rb"pg_tblspc/([0-9]+)(/.*)?", path, re.DOTALL)
            if space:
                oids.add(space[1])
                need(kind != FILE or space[2], f"{shown}: a file where a tablespace was expected")
            if kind == LINK:  # never made: PostgreSQL sends links for tablespaces only, and theirs lead to the source's files
                self.links.append((path, target))
                continue
            name = path + ASIDE if path in SET_ASIDE else path
            need(name not in seen and name.split(b"/")[0] not in (WAL_FOLDER, SPACE_FOLDER), f"{shown}: two entries of one name")
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
        for path in list(seen) + [b"pg_tblspc/" + oid for oid in oids]:
            while b"/" in path:
                path = path.rsplit(b"/", 1)[0]
                need(seen.get(path, DIRECTORY) == DIRECTORY, f"{os.fsdecode(path)}: a file and a directory at once")
                self.directories.setdefault(path, 0o700)
        totals, counted = self.b.record["totals"], (len(self.paths), len(self.links))
        need(counted == (totals["files"], totals["links"]), f"the file list has {counted} files and links, the record other numbers")
        unknown = set(self.mapped) - oids
        need(not unknown, f"--tablespace: this backup has no tablespace {b', '.join(unknown).decode()}", USAGE)
        self._check_tablespaces(oids)
        self.given = [self.top] + list(self.mapped.values())
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

    def _take(self, path):
        """A handle of a target that is new or empty. What another user owns could be changed under us, so it is not taken."""
        shown = os.fsdecode(path)
        try:
            os.makedirs(path, 0o700, exist_ok=True)
            handle = self.handles[path] = os.open(path, FOLDER)
            need(os.fstat(handle).st_uid == os.geteuid(), f"{shown}: belongs to another user; chown it to the one who restores, or name a new one", TARGET)
            mode = os.fstat(handle).st_mode & 0o777
            if not os.listdir(handle):
                os.fchmod(handle, 0o700)
                mode = os.fstat(handle).st_mode & 0o777
            # Only now can nobody else put anything in: what came before shows in this listing.
            need(not os.listdir(handle), f"{shown}: not empty; nothing was changed", TARGET)
            need(mode == 0o700, f"{shown}: this file system keeps no permissions", TARGET)
        except OSError as error:
            raise Refusal(TARGET, f"{shown}: {error.strerror}") from None

    def open(self, path, flags):
        root, beneath = self.place(path)
        return os.open(beneath or b".", flags, 0o600, dir_fd=self.handles[root])

    def create(self, path):
        return Durable(self.open(path, NEW), "wb")

    def run(self):
        need(os.geteuid() != 0, "not as root: what is restored would be root's, and PostgreSQL does not start for root. "
             "Say: runuser -u postgres -- python3 …", USAGE)
        need(not re.search(rb"[\0-\x1f\x7f]", self.top), "the directory's name has a control character", USAGE)
        self.plan()
        for number, place in enumerate(self.given):
            for other in self.given[:number] + self.given[number + 1:]:
                need(os.path.commonpath([place, other]) != other, f"{os.fsdecode(place)}: lies within another target", USAGE)
        for place in self.given:
            self._take(place)
        wal_bytes = len(self.b.wal) * self.b.record["server"]["walSegmentBytes"]
        free = shutil.disk_usage(self.top).free
        enough = len(self.given) > 1 or free > self.stored + wal_bytes
        need(enough, f"{os.fsdecode(self.top)}: {size_text(self.stored + wal_bytes)} needed, {size_text(free)} free", TARGET)
        for place in set(self.mapped.values()) - set(self.given):
            self._take(place)
        for path in sorted(self.directories):
            root, beneath = self.place(path)
            if beneath:
                os.mkdir(beneath, 0o700, dir_fd=self.handles[root])
        for oid, path in self.mapped.items():
            os.symlink(path, os.path.join(b"pg_tblspc", oid), dir_fd=self.handles[self.top])
        for number, path in enumerate(self.paths):
            with os.fdopen(self.open(path, NEW), "wb") as file:
                file.truncate(self.sizes[number])
        for done, pack in enumerate(sorted(self.extents)):
            self._scatter(pack)
            progress("restoring", done + 1, len(self.extents))
        os.mkdir(WAL_FOLDER, 0o700, dir_fd=self.handles[self.top])
        self.b.write_wal(lambda name: self.create(os.path.join(WAL_FOLDER, name.encode())))
        self._configure()
        self._finish()

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
                    file = os.fdopen(self.open(self.paths[entry], os.O_WRONLY | os.O_NOFOLLOW), "wb", 0)
                file.seek(offset)
                view = memoryview(held[1])[inner:inner + length]
                while view:
                    view = view[file.write(view):]
        finally:
            if file:
                file.close()

    def _configure(self):
        """A configuration of its own: socket only, archives nothing, replicates from nowhere, ends on a new timeline.

        The record's settings come first, so that none replaces one of ours.
        """
        archive = os.fsdecode(os.path.join(self.top, WAL_FOLDER)).replace("%", "%%")
        self.socket = socket = self.top if len(self.top) < 80 else b"/tmp"  # PostgreSQL refuses socket paths beyond 107 bytes
        minimum = self.b.record["server"]["minimumSettings"]
        taken = {name: value for name, value in minimum.items() if name in MINIMUM and re.fullmatch("[0-9]{1,10}", str(value))}
        for name in sorted(set(minimum) - set(taken)):
            say(f"WARNING: the record's setting {name!r} = {minimum[name]!r} is not taken")
        settings = {
            **taken,
            "listen_addresses": "", "unix_socket_directories": '"' + os.fsdecode(socket).replace('"', '""') + '"', "unix_socket_permissions": "0700",
            "restore_command": f"cp {shlex.quote(archive)}/%f %p", "recovery_target_timeline": "current",
            "recovery_target_action": "promote", "archive_mode": "off", "archive_command": "",
            "primary_conninfo": "", "primary_slot_name": "", "synchronous_standby_names": "",
            "max_logical_replication_workers": "0", "shared_preload_libraries": "", "logging_collector": "off",
        }
        def line(name, value):
            return f"{name} = '" + str(value).replace("\\", "\\\\").replace("'", "''") + "'\n"
        text = "# Written by tidemark_rescue.py: an isolated copy. The source's own files are beside this one, with .source at the end.\n"
        text += "".join(line(name, value) for name, value in settings.items())
        hba = "local all all trust\n# the socket lies in this directory, which only its owner can enter\n"
        if socket != self.top:
            hba = "local all all peer\n"
        for name, content in (("postgresql.conf", text), ("pg_hba.conf", hba), ("pg_ident.conf", ""), ("postgresql.auto.conf", ""),
                              ("recovery.signal", "")):
            with Durable(os.open(name, NEW, 0o600, dir_fd=self.handles[self.top]), "wb") as file:
                file.write(os.fsencode(content))

    def _finish(self):
        """Modes, times, fsync; then pg_control gets its name. Until then PostgreSQL refuses to start on this directory."""
        for number, path in enumerate(self.paths):
            handle = self.open(path, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                os.fchmod(handle, self.modes[number] & 0o777 | 0o600)
                os.utime(handle, (self.mtimes[number], self.mtimes[number]))
                os.fsync(handle)
            finally:
                os.close(handle)
        folders = [(path, mode) for path, mode in self.directories.items() if self.place(path)[1]] + [(WAL_FOLDER, 0o700)]
        if set(self.mapped.values()) - set(self.given):
            folders.append((SPACE_FOLDER, 0o700))
        for path, mode in folders:
            handle = self.open(path, FOLDER)
            os.fchmod(handle, mode & 0o777 | 0o700)
            os.fsync(handle)
            os.close(handle)
        for root, handle in self.handles.items():
            os.fsync(handle)
            try:
                parent = os.open(os.path.dirname(root), os.O_RDONLY)
            except PermissionError:  # one that may be passed through but not read
                continue
            os.fsync(parent)
            os.close(parent)
        missing = [name for name in (CONTROL, b"backup_label", b"PG_VERSION") if name not in set(self.paths)]
        need(not missing, f"everything is laid out, but this is no cluster that can start: {missing[0].decode() if missing else ''} "
             "is not in the backup")
        top = self.handles[self.top]
        os.rename(CONTROL + b".incomplete", CONTROL, src_dir_fd=top, dst_dir_fd=top)
        handle = os.open(b"global", FOLDER, dir_fd=top)
        os.fsync(handle)
        os.close(handle)

class Durable(io.FileIO):
    """A file that is on disk once it is closed."""

    def write(self, data):
        view = memoryview(data)
        while view:
            view = view[super().write(view):]

    def close(self):
        if not self.closed:
            os.fsync(self.fileno())
        super().close()

# ---- the verbs ---------------------------------------------------------------------------------------------------------------

def plain(text):
    """For a terminal: what others wrote must not steer it."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "surrogatepass").decode() for c in text)

def say(text, file=None):
    print(plain(text), file=file or sys.stderr, flush=True)

def answer(text):
    say(text, sys.stdout)

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
            totals = record["totals"]
            there = os.path.exists(repository.path(f"{folder}/base/{record['backupId']}/packs.jsonl"))
            answer(f"{record['backupId']}  {record['stoppedAt']}  {record['cluster']}  system {record['systemId']}  PostgreSQL "
                   f"{version_of(record)}  timeline {record['timeline']}  {size_text(totals['bytes'])} in {totals['files']} files  "
                   f"{record['verdict']}{'' if there else '  (its pack table is missing here)'}")
        except (Refusal,) + MALFORMED as refusal:
            bad += 1
            answer(f"UNTRUSTED {folder}/records/{name}: {refusal}")
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
    backup.write_wal(lambda name: open(os.devnull, "wb"))
    what = f"{backup.id}: {counts[FILE]} files, {size_text(total)}, {len(backup.packs)} packs, {len(backup.wal)} WAL segments"
    damage = backup.damage()
    need(not damage, f"{what}: every byte is as it was stored, but this is no restorable point: {damage}", NO_POINT)
    answer(f"{what}: all verified")

def print_configuration(backup):
    document = backup.source()
    for entry in document["configuration"]:
        content = entry["content"]
        answer(f"######## {entry['kind']} {entry['path']}")
        answer("# (in the data directory; see the restored file)" if content is None
               else base64.b64decode(content, validate=True).decode("utf-8", "backslashreplace"))
    for entry in document["unread"]:
        answer(f"######## could not be read: {json.dumps(entry)}")
    answer("######## settings that differed from PostgreSQL's defaults")
    for setting in document["settings"]:
        answer(f"# {setting['name']} = {setting['value']!r} {setting.get('unit') or ''}  ({setting.get('file') or setting.get('source')})")
    for name in ("tablespaces", "databases", "extensions"):
        answer(f"######## {name}")
        for entry in document[name]:
            answer("# " + json.dumps(entry, ensure_ascii=False))

def restore(backup, options):
    damage = backup.damage()
    need(not damage or options.allow_damaged, f"{damage}. Choose another backup, or say --allow-damaged to restore it anyway", NO_POINT)
    spaces = {}
    for text in options.tablespace:
        match = re.fullmatch(r"([0-9]+)=(/.+)", text)
        need(match and match[1] not in spaces, f"--tablespace {text}: give OID=/absolute/directory, each once", USAGE)
        spaces[match[1]] = match[2]
    work = Restore(backup, options.directory, spaces, options.replay_tablespaces)
    work.run()
    for path, target in work.links:
        say(f"NOTE: the link {os.fsdecode(path)} to {os.fsdecode(target)} was not made")
    for oid, place in work.spaces.items():
        say(f"NOTE: tablespace {oid}, on the source in {place or '(unknown)'}, is in {os.fsdecode(work.mapped[oid.encode()])}")
    libraries = backup.record["server"]["preloadLibraries"]
    if libraries:
        say(f"NOTE: the source preloaded {', '.join(libraries)}. If recovery asks for one, install it and add it to shared_preload_libraries")
    top = os.fsdecode(work.top)
    say(f"restored to {top}. Start it as the user who owns it, with PostgreSQL {version_of(backup.record)} "
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
                                     epilog="exit codes: 2 usage, 3 key, 4 not found or unknown version, 5 damaged, 6 target, 7 damaged source")
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
            verb.add_argument("directory", help="new, or empty and yours")
            verb.add_argument("--tablespace", action="append", default=[], metavar="OID=DIR", help="else below the directory")
            verb.add_argument("--replay-tablespaces", action="store_true", help="for a backup that a CREATE TABLESPACE fell into")
            verb.add_argument("--allow-damaged", action="store_true", help="also a backup whose source had damaged pages")
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
            answer(f"{name}: {'NO signature checked' if primitives.unchecked else 'signature holds'}, {text}")
        for key_id in repository.data_key_ids():
            answer(f"data key {key_id}: {'opens' if repository.data_key(key_id) else 'NOT wrapped for this key'}")
    elif options.verb == "verify":
        verify(Backup(repository, options.backup))
    elif options.verb == "configuration":
        print_configuration(Backup(repository, options.backup))
    else:
        restore(Backup(repository, options.backup), options)

def run(arguments):
    """The exit code. Every reason to stop is one line on standard error."""
    try:
        main(arguments)
    except Refusal as refusal:
        say(f"REFUSED: {refusal}")
        return refusal.code
    except MALFORMED as error:
        say(f"REFUSED: a document has not the form that docs/repository-format.md gives it: {type(error).__name__}: {error}")
        return DAMAGED
    except OSError as error:
        say(f"REFUSED: {error}")
        return TARGET
    except KeyboardInterrupt:
        say("interrupted: delete what was restored so far, and start again")
        return 130
    return 0

if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
