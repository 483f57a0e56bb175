#!/usr/bin/env python3
"""Opens a sealed stream of suite 2 by the text of docs/repository-format.md, section 2, and nothing else of Tidemark.

Usage: read_suite2.py <data key, 64 hex digits> < sealed > plaintext

Exits with 1 and one line on stderr when the stream is to be refused. Needs Python 3 and OpenSSL's libcrypto, which stands in for
the AES-GCM that the standard library lacks. Compressed frames are refused: the standard library has no zstd.
"""
import ctypes
import ctypes.util
import hashlib
import hmac
import sys

HEADER, FRAME_HEADER, TAG = 160, 12, 16
COMPRESSED, LAST = 1, 2


def refuse(reason):
    sys.exit(f"refused: {reason}")


def load_libcrypto():
    for name in (ctypes.util.find_library("crypto"), "libcrypto.so.3", "libcrypto.so"):
        try:
            if name:
                return ctypes.CDLL(name)
        except OSError:
            continue
    sys.exit("libcrypto not found: install libssl3")


libcrypto = load_libcrypto()
libcrypto.EVP_CIPHER_CTX_new.restype = ctypes.c_void_p
libcrypto.EVP_aes_256_gcm.restype = ctypes.c_void_p


def gcm_open(key, nonce, bound, ciphertext, tag):
    """The plaintext, or None where the tag does not hold."""
    context = ctypes.c_void_p(libcrypto.EVP_CIPHER_CTX_new())
    out = ctypes.create_string_buffer(len(ciphertext) + 16)
    count = ctypes.c_int(0)
    cipher = ctypes.c_void_p(libcrypto.EVP_aes_256_gcm())
    libcrypto.EVP_DecryptInit_ex(context, cipher, None, key, nonce)
    libcrypto.EVP_DecryptUpdate(context, None, ctypes.byref(count), bound, len(bound))
    libcrypto.EVP_DecryptUpdate(context, out, ctypes.byref(count), ciphertext, len(ciphertext))
    plaintext = out.raw[: len(ciphertext)]
    libcrypto.EVP_CIPHER_CTX_ctrl(context, 0x11, TAG, ctypes.c_char_p(tag))
    held = libcrypto.EVP_DecryptFinal_ex(context, out, ctypes.byref(count)) == 1
    libcrypto.EVP_CIPHER_CTX_free(context)
    return plaintext if held else None


def hkdf(key, salt, info):
    """RFC 5869 for one block of 32 bytes."""
    pseudorandom = hmac.new(salt, key, hashlib.sha256).digest()
    return hmac.new(pseudorandom, info + b"\x01", hashlib.sha256).digest()


def main():
    data_key = bytes.fromhex(sys.argv[1])
    stored = sys.stdin.buffer.read()
    if len(stored) < HEADER or stored[:8] != b"TIDEMARK":
        refuse("not a sealed stream")
    if stored[8:10] != b"\x00\x01" or stored[10] != 2:
        refuse("another version or suite")
    salt, bound_header = stored[32:64], stored[:128]
    info = b"tidemark" + stored[8:10] + stored[10:11]
    header_tag = hmac.new(hkdf(data_key, salt, info + b"header"), bound_header, hashlib.sha256).digest()
    if not hmac.compare_digest(header_tag, stored[128:160]):
        refuse("header")
    key = hkdf(data_key, salt, info + b"encrypt")
    at, index, last = HEADER, 0, False
    while not last:
        start = stored[at : at + FRAME_HEADER]
        if len(start) < FRAME_HEADER:
            refuse("truncated")
        flags = start[0]
        plain_length = int.from_bytes(start[4:8], "big")
        length = int.from_bytes(start[8:12], "big")
        body = stored[at + FRAME_HEADER : at + FRAME_HEADER + length]
        tag = stored[at + FRAME_HEADER + length : at + FRAME_HEADER + length + TAG]
        if len(body) < length or len(tag) < TAG:
            refuse("truncated")
        position = index.to_bytes(8, "big")
        plaintext = gcm_open(key, b"\x00" * 4 + position, bound_header + position + start, body, tag)
        if plaintext is None:
            refuse(f"frame {index}")
        if flags & COMPRESSED:
            refuse("compressed, and there is no zstd here")
        if len(plaintext) != plain_length:
            refuse("length")
        sys.stdout.buffer.write(plaintext)
        last = bool(flags & LAST)
        at += FRAME_HEADER + length + TAG
        index += 1
    if at != len(stored):
        refuse("trailing bytes")


main()
