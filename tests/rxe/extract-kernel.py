"""Takes the kernel proper, an uncompressed ELF file, out of a bzImage.

    extract-kernel.py BZIMAGE VMLINUX

QEMU enters the ELF file directly (by its PVH note). That saves the firmware and the decompression inside of the
emulated machine, which is most of the time that a boot would take.

Offsets are those of the header that the kernel's Documentation/arch/x86/boot.rst describes.
"""

import lzma
import struct
import subprocess
import sys
import zlib


def payload(image: bytes) -> bytes:
    if image[0x202:0x206] != b"HdrS":
        sys.exit("not a bzImage: the header's magic number is missing")
    sectors = image[0x1F1] or 4  # of real-mode code; 0 means 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    begin = (sectors + 1) * 512 + offset
    return image[begin : begin + length]


def decompress(data: bytes) -> bytes:
    """Decompresses one stream; behind it lies its length, which is not part of it."""
    if data.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(data)
    if data.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-qdc"], input=data, stdout=subprocess.PIPE).stdout
    sys.exit(f"a kernel compressed in a way that is not known here: it begins with {data[:6].hex()}")


source, target = sys.argv[1:]
with open(source, "rb") as file:
    kernel = decompress(payload(file.read()))
if not kernel.startswith(b"\x7fELF"):
    sys.exit(f"{source} holds no ELF file")
with open(target, "wb") as file:
    file.write(kernel)
