"""Uploads: damaged, enormous, or no image at all."""

import io
import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image, ImageDraw

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA")
MODES = ("L", "RGB", "RGBA", "P", "1", "LA", "I;16", "F")


def seven(mode: str = "L") -> Image.Image:
    """A dark 7 on a light background, 100×120."""
    image = Image.new("L", (100, 120), 255)
    ImageDraw.Draw(image).line([(25, 25), (75, 25), (45, 100)], fill=0, width=10, joint="curve")
    return image.convert(mode)


def encoded(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def png_of(width: int, height: int, bits: int = 8, color: int = 0, more: bytes = b"") -> bytes:
    """A PNG whose header claims more pixels than it has. `more`: chunks before the pixels."""
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + pixels + chunk(b"IEND", b"")


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def enormous() -> dict[str, bytes]:
    """Small files with many pixels; the first ones are within the limits."""
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 9))
    return {
        "7000×7000.png": encoded(Image.new("RGB", (7000, 7000), "white"), "PNG"),
        "7000×7000.jpg": encoded(Image.new("L", (7000, 7000), 255), "JPEG"),
        "2×20000000.png": encoded(Image.new("1", (2, 20_000_000)), "PNG"),
        "20000×20000.png": encoded(Image.new("1", (20_000, 20_000)), "PNG"),
        "20000×20000.tiff": encoded_packed(20_000),
        "gif.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + b"\x2c" + bytes(40),
        "claim.png": png_of(2**31 - 1, 2**31 - 1),
        "text.png": png_of(50, 50, more=text),
        "profile.png": png_of(50, 50, more=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000), 9))),
    }


def encoded_packed(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "TIFF", compression="group4")
    return buffer.getvalue()


def strange() -> dict[str, bytes]:
    """Files that are not images, or in formats that start other programs."""
    bitmap = bytearray(encoded(seven("RGB"), "BMP"))
    bitmap[18:26] = struct.pack("<ii", -100, -120)
    return {
        "empty.png": b"",
        "zero.png": png_of(0, 0),
        "thin.png": png_of(1, 4000),
        "bits.png": png_of(50, 50, bits=77),
        "color.png": png_of(50, 50, color=99),
        "negative.bmp": bytes(bitmap),
        "text.png": b"no image",
        "null.png": bytes(5000),
        "script.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file 9 string readstring\n",
        "archive.zip": b"PK\x03\x04" + bytes(60),
        "archive.png": encoded(seven(), "PNG")[:200] + b"PK\x03\x04" + bytes(60),
        "page.html": b"<script>alert(1)</script>",
        "icon.icns": b"icns" + struct.pack(">I", 2**31) + b"ic10" + bytes(30),
        "fits.fits": b"SIMPLE  =                    T" + bytes(2880),
    }


def damaged(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """An infinite iterator of images with bytes cut off, changed, duplicated or inserted."""
    sound = [encoded(seven(mode), form) for form in FORMATS for mode in MODES if can_save(mode, form)]
    while True:
        content = bytearray(rng.choice(sound))
        for _ in range(rng.choice((1, 1, 3, 20))):
            place, how = rng.randrange(len(content)), rng.randrange(5)
            if how == 0:
                del content[max(place, 4) :]
            elif how == 1:
                content[place : place + 4] = rng.randbytes(4)
            elif how == 2:
                content[place : place + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0"))
            elif how == 3:
                content[place:place] = content[place : place + rng.randrange(1, 200)]
            else:
                content[place] ^= 1 << rng.randrange(8)
        yield f"{rng.choice(('a.png', 'b.jpg', 'c', 'd.tiff', 'e.exe'))}", bytes(content)


def can_save(mode: str, form: str) -> bool:
    try:
        encoded(seven(mode), form)
    except (OSError, ValueError):
        return False
    return True
