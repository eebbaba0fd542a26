"""What Pillow, tifffile and NumPy read from pictures of every kind that people's files are of.

Usage: data_pictures.py FOLDER. Writes the files, raw arrays and manifest.json there: cases of
"file", "channels" and either "raw" with "height", "width", "kind" (bytes or floats) and "tolerance"
(largest, mean), or "refused" (whether nobody reads it, or what the message must say)."""

import io
import itertools
import json
import pathlib
import struct
import sys
import zlib

import numpy as np
import skimage
import tifffile
from PIL import Image, ImageOps

OUT = pathlib.Path(sys.argv[1])
PHOTO = Image.open(pathlib.Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB")
RGB = np.asarray(PHOTO.crop((150, 30, 257, 103)))
GREY = np.asarray(Image.fromarray(RGB).convert("L"))
ALPHA = np.roll(GREY, 40, 1)
HEIGHT, WIDTH = GREY.shape
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
EXACT = (0, 0)
# Rounding of the inverse transform, of the up-sampling of chroma and of the colour conversion.
JPEG = (4, 0.3)
cases = []


def picture(file, channels=(1, 3), tolerance=EXACT):
    """`file` as Pillow reads it; whether it can be told by each number of channels."""
    for count in channels:
        case = dict(file=file, channels=count)
        try:
            decoded = ImageOps.exif_transpose(Image.open(OUT / file)).convert(MODES[count])
        except Exception:
            cases.append(dict(case, refused=""))
            continue
        expected(case, np.asarray(decoded), "bytes", tolerance)


def expected(case, array, kind, tolerance):
    raw = f"{len(cases)}.raw"
    (OUT / raw).write_bytes(np.ascontiguousarray(array).tobytes())
    height, width = array.shape[:2] if kind == "bytes" else array.shape[1:]
    cases.append(dict(case, raw=raw, height=height, width=width, kind=kind, tolerance=tolerance))


def bands(file, array):
    """`file` holds the bands [H, W, C] of `array`: integers become what img_as_float makes of
    them, floats stay."""
    array = np.asarray(array)
    if array.dtype.kind in "ui":
        array = skimage.util.img_as_float64(array) if array.dtype.itemsize < 8 else \
            np.maximum(array / np.iinfo(array.dtype).max, -1)
    planes = np.moveaxis(array, 2, 0).astype(np.float32)
    expected(dict(file=file, channels=len(planes)), planes, "floats", (1.2e-7, 1.2e-7))


def refused(file, channels, words):
    cases.append(dict(file=file, channels=channels, refused=words))


def tiff(file, strips, tags, order="<", big=False):
    """Writes a TIFF of one page; `tags`: number to (type, values)."""
    letters = {3: "H", 4: "I", 9: "i", 16: "Q"}
    place, offset, count = (16, "Q", "Q") if big else (8, "I", "H")
    offsets = [place + sum(map(len, strips[:at])) for at in range(len(strips))]
    defaults = {273: (4, offsets), 279: (4, [len(strip) for strip in strips])}
    entries = sorted({**defaults, **tags}.items())
    entries = [(tag, *values) for tag, values in entries if values]
    room = struct.calcsize(offset)
    start = place + sum(map(len, strips))
    behind = start + struct.calcsize(count) + len(entries) * (4 + 2 * room) + room
    directory, more = struct.pack(order + count, len(entries)), b""
    for tag, kind, values in entries:
        data = struct.pack(order + letters[kind] * len(values), *values)
        directory += struct.pack(order + "HH" + offset, tag, kind, len(values))
        if len(data) <= room:
            directory += data.ljust(room, b"\0")
        else:
            directory += struct.pack(order + offset, behind + len(more))
            more += data
    directory += struct.pack(order + offset, 0)
    head = (b"II" if order == "<" else b"MM") + (
        struct.pack(order + "HHHQ", 43, 8, 0, start) if big else struct.pack(order + "HI", 42, start))
    (OUT / file).write_bytes(head + b"".join(strips) + directory + more)


def tags(bits, photometric, samples=1, width=WIDTH, height=HEIGHT, **_):
    return {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * samples), 259: (3, [1]),
            262: (3, [photometric]), 277: (3, [samples]), 278: (4, [height])}


def packed(values, bits):
    """Rows of `values` of so many bits each, highest first."""
    shifts = np.arange(bits)[::-1]
    return np.packbits((values[:, :, None] >> shifts & 1).reshape(len(values), -1), 1).tobytes()


def few_bits():
    for bits, white, reversed_bits in itertools.product((1, 2, 4, 8), (0, 1), (1, 2)):
        data = packed(GREY.astype(int) >> (8 - bits), bits)
        if reversed_bits == 2:
            data = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
        file = f"grey{bits}{white}{reversed_bits}.tif"
        tiff(file, [data], {**tags(bits, white), 266: (3, [reversed_bits])})
        if (bits, white, reversed_bits) != (8, 0, 2):  # Pillow fails on its own mode
            picture(file)
    for bits, order in itertools.product((1, 2, 4, 8), "<>"):
        image = Image.fromarray(RGB).quantize(2**bits)
        colours = (image.getpalette() + [0] * 768)[:3 * 2**bits]
        levels = [257 * level for channel in range(3) for level in colours[channel::3]]
        file = f"palette{bits}{'be' * (order == '>')}.tif"
        tiff(file, [packed(np.asarray(image).astype(int), bits)],
             {**tags(bits, 3), 320: (3, levels)}, order)
        picture(file, (1, 3, 4))
    for bits in (10, 12, 14):
        values = GREY.astype(int) << (bits - 8) | 3
        tiff(f"grey{bits}.tif", [packed(values, bits)], tags(bits, 1))
        expected(dict(file=f"grey{bits}.tif", channels=1),
                 np.round(values * 255 / (2**bits - 1)).astype(np.uint8), "bytes", (1, 0.1))


def compressions():
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma", "jpeg"):
        for mode in ("RGB", "L", "CMYK", "YCbCr"):
            file = f"{compression}_{mode}.tif"
            Image.fromarray(RGB).convert(mode).save(
                OUT / file, compression=None if compression == "raw" else compression)
            rounding = (1, 0.6) if mode == "YCbCr" else EXACT
            picture(file, (1, 3), JPEG if compression == "jpeg" else rounding)
    bits = Image.fromarray(RGB).convert("1")
    for name, compression, more in (("3", "group3", {}), ("3_2d", "group3", {292: 1}),
                                    ("3_aligned", "group3", {292: 4}), ("4", "group4", {}),
                                    ("4_reversed", "group4", {266: 2}), ("rle", "tiff_ccitt", {}),
                                    ("4_white", "group4", {262: 0})):
        bits.save(OUT / f"fax{name}.tif", compression=compression, tiffinfo=more)
        picture(f"fax{name}.tif")
    webp = io.BytesIO()
    Image.fromarray(RGB).save(webp, "WEBP", lossless=True)
    tiff("webp.tif", [webp.getvalue()], {**tags(8, 2, 3), 259: (3, [50001])})
    expected(dict(file="webp.tif", channels=3), RGB, "bytes", EXACT)
    for code, name in ((6, "old-style JPEG"), (34887, "LERC"), (34712, "JPEG 2000"), (4711, "4711")):
        tiff(f"code{code}.tif", [b"abc" * 9], {**tags(8, 2, 3), 259: (3, [code])})
        refused(f"code{code}.tif", 3, name)


def colours():
    # LittleCMS interpolates between points of a table: its own error is larger than ours.
    Image.fromarray(RGB).convert("LAB").save(OUT / "lab.tif")
    picture("lab.tif", (3,), (8, 0.4))
    for across, down in ((1, 1), (2, 1), (2, 2), (4, 2)):
        planes = [np.asarray(band).astype(int)
                  for band in Image.fromarray(RGB).convert("YCbCr").split()]
        planes = [np.pad(p, ((0, -HEIGHT % down), (0, -WIDTH % across)), "edge") for p in planes]
        units = [p.reshape(p.shape[0] // down, down, -1, across).swapaxes(1, 2) for p in planes]
        chroma = [unit.mean((2, 3), keepdims=True).astype(int) for unit in units[1:]]
        flat = [part.reshape(*part.shape[:2], -1) for part in (units[0], *chroma)]
        data = np.concatenate(flat, 2).astype(np.uint8).tobytes()
        tiff(f"ycbcr{across}{down}.tif", [zlib.compress(data)],
             {**tags(8, 6, 3), 259: (3, [8]), 530: (3, [across, down])})
        picture(f"ycbcr{across}{down}.tif", (3,), (1, 0.6))
        tiff(f"ycbcr{across}{down}_differences.tif", [zlib.compress(data)],
             {**tags(8, 6, 3), 259: (3, [8]), 317: (3, [2]), 530: (3, [across, down])})
        picture(f"ycbcr{across}{down}_differences.tif", (3,), (1, 0.6))


def subsampled():
    """Chroma that is subsampled beside another sample, in planes or of 16 bits: Pillow and tifffile
    refuse it. Without a word on it, it is subsampled by 2 (TIFF 6.0, section 21)."""
    pixels = np.dstack([np.asarray(Image.fromarray(RGB).convert("YCbCr")), ALPHA])
    for bits, planar, samples, factors in itertools.product(
            (8, 16), (1, 2), (3, 4), (None, [1, 1], [2, 1], [2, 2])):
        stored = pixels[..., :samples].astype(f"u{bits // 8}")
        stored = stored if bits == 8 else stored * 257
        strips = [stored] if planar == 1 else np.moveaxis(stored, 2, 0)
        file = f"subsampled{bits}_{planar}_{samples}_{factors}.tif".replace(" ", "")
        more = {338: (3, [0])} if samples == 4 else {}
        more = more if factors is None else {**more, 530: (3, factors)}
        tiff(file, [strip.tobytes() for strip in strips],
             {**tags(bits, 6, samples), 284: (3, [planar]), **more})
        if samples == 4 and factors == [1, 1]:
            assert np.array_equal(np.moveaxis(tifffile.imread(OUT / file), 0, 2) if planar == 2
                                  else tifffile.imread(OUT / file), stored)
            bands(file, stored)
        elif factors != [1, 1] and (bits, planar, samples) != (8, 1, 3):
            for read in (tifffile.imread, lambda path: Image.open(path).load()):
                try:
                    read(OUT / file)
                except Exception:
                    continue
                raise AssertionError(f"{file} is read")
            refused(file, samples, "YCbCr with subsampled chroma")
            refused(file, 3, "YCbCr with subsampled chroma")


def extra_samples():
    for extra, bits, planar in itertools.product((None, 0, 1, 2, 999), (8, 16), (1, 2)):
        pixels = np.dstack([RGB, ALPHA]).astype(int)
        if extra == 1:
            pixels[..., :3] = (pixels[..., :3] * pixels[..., 3:] + 127) // 255
        pixels = pixels.astype(np.uint8) if bits == 8 else (pixels * 257).astype(np.uint16)
        strips = [pixels] if planar == 1 else np.moveaxis(pixels, 2, 0)
        file = f"extra{extra}_{bits}_{planar}.tif"
        more = {} if extra is None else {338: (3, [extra])}
        tiff(file, [strip.tobytes() for strip in strips],
             {**tags(bits, 2, 4), 284: (3, [planar]), **more})
        bands(file, pixels)
        if bits == 8 and planar == 1:
            picture(file)
    for count, first in itertools.product((2, 3), (0, 1, 2)):
        pixels = np.dstack([RGB] + [ALPHA] * count)
        file = f"extras{count}_{first}.tif"
        tiff(file, [pixels.tobytes()],
             {**tags(8, 2, 3 + count), 338: (3, [first] + [0] * (count - 1))})
        picture(file, (3,))
        bands(file, pixels)


def every_type():
    random = np.random.default_rng(0)
    for code in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"):
        kind = np.dtype(code)

        def draw(*shape):
            if kind.kind == "f":
                return random.normal(size=shape).astype(kind)
            limits = np.iinfo(kind)
            return random.integers(limits.min, limits.max, shape, kind, endpoint=True)

        layouts = {"strips": {}, "rows": dict(rowsperstrip=5), "tiles": dict(tile=(16, 32)),
                   "zip": dict(compression="zlib"), "big": dict(bigtiff=True),
                   "be": dict(byteorder=">"), "xz": dict(compression="lzma"),
                   "predictor": dict(compression="zlib", predictor=True, tile=(16, 16)),
                   "predictor_be": dict(compression="zlib", predictor=True, byteorder=">")}
        for (name, options), planar in itertools.product(layouts.items(), ("contig", "separate")):
            if "predictor" in options and (code in ("u8", "i8") or kind.kind == "f"):
                continue  # tifffile writes none
            pixels = draw(37, 53, 5)
            file = f"{code}_{name}_{planar}.tif"
            stored = pixels if planar == "contig" else np.moveaxis(pixels, 2, 0)
            photometric = "rgb" if name == "rows" else "minisblack"
            tifffile.imwrite(OUT / file, stored, photometric=photometric, planarconfig=planar,
                             **options)
            bands(file, pixels)
        for count in (2, 3, 4, 6):
            pages = draw(count, 11, 13)
            tifffile.imwrite(OUT / f"pages_{code}_{count}.tif", pages, photometric="minisblack")
            bands(f"pages_{code}_{count}.tif", np.moveaxis(pages, 0, 2))
        for order, fortran in itertools.product("<>", (False, True)):
            pixels = draw(5, 7, 4)
            stored = np.asarray(pixels, kind.newbyteorder(order), order="F" if fortran else "C")
            file = f"{code}{'be' * (order == '>')}{'_fortran' * fortran}.npy"
            version = {"f8": (3, 0), "f4": (2, 0)}.get(code, (1, 0))
            with open(OUT / file, "wb") as opened:
                np.lib.format.write_array(opened, stored, version)
            bands(file, pixels)
        if code not in ("u1", "u2"):
            pixels = draw(11, 13)
            tifffile.imwrite(OUT / f"one_{code}.tif", pixels, photometric="minisblack")
            bands(f"one_{code}.tif", pixels[:, :, None])
            refused(f"one_{code}.tif", 3, "--in-chans 1")
    truths = random.integers(0, 2, (5, 7, 4)).astype(bool)
    np.save(OUT / "truths.npy", truths)
    bands("truths.npy", truths.astype(np.float32))
    for name, kind in dict(complex="c8", structured=[("r", "u1")], text="U3", times="M8[s]").items():
        np.save(OUT / f"{name}.npy", np.zeros((3, 3, 4), kind))
        refused(f"{name}.npy", 4, name)
    np.save(OUT / "objects.npy", np.full((3, 3, 4), None), allow_pickle=True)
    refused("objects.npy", 4, "Python objects")


def pages():
    pixels = np.dstack([RGB, ALPHA])
    with tifffile.TiffWriter(OUT / "thumbnail.tif") as file:
        file.write(pixels, photometric="minisblack", planarconfig="contig")
        file.write(ALPHA[::2, ::2].copy(), photometric="minisblack", subfiletype=1)
    bands("thumbnail.tif", pixels)
    with tifffile.TiffWriter(OUT / "rgb_and_more.tif") as file:
        file.write(RGB, photometric="rgb")
        file.write(ALPHA, photometric="minisblack")
    bands("rgb_and_more.tif", pixels)
    with tifffile.TiffWriter(OUT / "sizes.tif") as file:
        for rows in range(20, 24):
            file.write(GREY[:rows].copy(), photometric="minisblack")
    refused("sizes.tif", 4, "different sizes")
    refused("pages_u1_6.tif", 4, "pages")
    refused("u1_strips_contig.tif", 4, "5 bands")


def exif(number, kind=3):
    value = struct.pack("<HHI", 0x112, kind, 1) + struct.pack("<I", number)
    return b"II*\0\x08\0\0\0\x01\0" + value + bytes(4)


XMP = b'<rdf:Description tiff:Orientation="6"/>'


def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_files():
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    whole = saved(Image.fromarray(RGB), "PNG")
    header, pixels, end = whole[:33], whole[33:-12], whole[-12:]
    checksum = bytearray(whole)
    checksum[-14] ^= 0xff
    data = b"Exif\0\0" + exif(7)
    profile = b"\nexif\n%8d\n%s\n" % (len(data), data.hex().encode())
    name, packet = b"Raw profile type exif\0", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
    files = {
        **{f"cut{lost}": whole[:-lost] for lost in (1, 4, 8, 12, 16, 18, 20, 24, 999)},
        "bad_end": whole[:-4] + b"abcd",
        "bad_checksum": bytes(checksum),
        "exif": header + chunk(b"eXIf", exif(8)) + pixels + end,
        "exif_behind": header + pixels + chunk(b"eXIf", exif(6)) + end,
        "exif_long": header + pixels + chunk(b"eXIf", exif(6, 4)) + end,
        "text": header + chunk(b"tEXt", name + profile) + pixels + end,
        "packed_text": header + chunk(b"zTXt", name + b"\0" + zlib.compress(profile)) + pixels + end,
        "text_behind": header + pixels + chunk(b"tEXt", name + profile) + end,
        "xmp": header + chunk(b"iTXt", packet) + pixels + end,
        "both": header + chunk(b"eXIf", exif(3)) + chunk(b"iTXt", packet) + pixels + end,
    }
    for name, content in files.items():
        (OUT / f"{name}.png").write_bytes(content)
        picture(f"{name}.png")
    for name, options in (("exif", dict(exif=b"Exif\0\0" + exif(8, 4))), ("xmp", dict(xmp=XMP))):
        (OUT / f"{name}.webp").write_bytes(
            saved(Image.fromarray(RGB), "WEBP", lossless=True, **options))
        picture(f"{name}.webp")
    for number, kind in itertools.product(range(1, 9), (3, 4)):
        file = f"turned{number}{kind}.tif"
        tiff(file, [RGB.tobytes()], {**tags(8, 2, 3), 274: (kind, [number])})
        picture(file, (3,))


def jpeg_files():
    image = Image.fromarray(RGB)
    jfif = b"\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
    adobe = {number: b"\xff\xee\0\x0eAdobe\0d\0\0\0\0" + bytes([number]) for number in range(4)}

    def with_markers(file, markers):
        """`file` with these application segments alone."""
        at, kept = 2, []
        while file[at + 1] != 0xda:
            end = at + 2 + int.from_bytes(file[at + 2:at + 4], "big")
            if not 0xe0 <= file[at + 1] <= 0xef:
                kept.append(file[at:end])
            at = end
        return b"\xff\xd8" + b"".join(markers + kept) + file[at:]

    kinds = {
        "colour": saved(image, "JPEG", quality=90),
        "progressive": saved(image, "JPEG", quality=90, progressive=True),
        "grey": saved(image.convert("L"), "JPEG", quality=90),
        "cmyk": saved(image.convert("CMYK"), "JPEG", quality=95),
        "rgb": saved(image, "JPEG", quality=90, keep_rgb=True),
    }
    for kind, file in kinds.items():
        # Four components are converted a second time.
        tolerance = (4, 0.7) if kind == "cmyk" else JPEG
        for has_jfif, number in itertools.product((False, True), (None, 0, 1, 2, 3)):
            markers = [jfif] * has_jfif + ([] if number is None else [adobe[number]])
            name = f"{kind}{'_jfif' * has_jfif}{'' if number is None else f'_adobe{number}'}.jpg"
            (OUT / name).write_bytes(with_markers(file, markers))
            picture(name, (1, 3), tolerance)
        for name, end in (("none", b""), ("zeros", bytes(16)), ("restart", b"\xff\xd0"),
                          ("tables", b"\xff\xc4"), ("half", b"\xff"), ("text", b"\n")):
            (OUT / f"{kind}_end_{name}.jpg").write_bytes(file[:-2] + end)
            picture(f"{kind}_end_{name}.jpg", (3,), tolerance)
        (OUT / f"{kind}_cut.jpg").write_bytes(file[:len(file) // 2] + bytes(99))
        picture(f"{kind}_cut.jpg", (3,), tolerance)

    def segment(data):
        return b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data

    start = b"Exif\0\0"
    big_endian = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x05" + bytes(4)
    tagged = {
        "short": [start + exif(6)], "long": [start + exif(6, 4)], "signed": [start + exif(8, 9)],
        "byte": [start + exif(6, 1)], "zero": [start + exif(0)], "nine": [start + exif(9)],
        "twice": [start * 2 + exif(6)], "big_endian": [start + big_endian],
        "split": [start + exif(6)[:14], start + exif(6)[14:]],
        "second": [start + exif(1), start + exif(6)],
        "xmp": [b"http://ns.adobe.com/xap/1.0/\0" + XMP],
    }
    for name, segments in tagged.items():
        file = kinds["colour"]
        (OUT / f"tag_{name}.jpg").write_bytes(file[:2] + b"".join(map(segment, segments)) + file[2:])
        picture(f"tag_{name}.jpg", (3,), JPEG)


for make in (few_bits, compressions, colours, subsampled, extra_samples, every_type, pages, png_files, jpeg_files):
    make()
tiff("big.tif", [RGB.tobytes()], tags(8, 2, 3), big=True)
picture("big.tif", (1, 3, 4))
tiff("big_be.tif", [RGB.tobytes()], tags(8, 2, 3), ">", big=True)
expected(dict(file="big_be.tif", channels=3), RGB, "bytes", EXACT)
(OUT / "manifest.json").write_text(json.dumps(cases))
