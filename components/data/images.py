"""Any image file a person may have -> the 8-bit RGB picture they would see, or a sentence why not.

Everything that takes pictures from users goes through here (`cotam encode`, `cotam shard`, `cotam ask`), so that a
rotated phone photo, a CMYK scan or a transparent PNG means the same thing everywhere.
"""

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from components.errors import CotamError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is tried. Not all that Pillow knows: its EPS, for one, starts another program on the user's file."""

MAXIMUM_PIXELS = 100_000_000
MAXIMUM_BYTES = 1 << 30

_SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_UPRIGHT = {  # EXIF orientation: what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns about large sizes, which are checked here, and about odd metadata, which does not matter here.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnusableImageError(Exception):
    """Why a picture cannot be used, as the rest of a sentence that begins with its name: "is empty"."""


def open_image(source: str | os.PathLike | bytes, maximum_pixels: int = MAXIMUM_PIXELS) -> Image.Image:
    """Read a picture as a person sees it.

    Rotated as its EXIF data says, transparency over white, 16 bits scaled to 8, CMYK and other colour spaces turned
    into sRGB, the first frame of an animation.

    Args:
        source: a file, or the bytes of one.
        maximum_pixels: more is refused before anything is decoded, as a small file can hold a huge picture.

    Returns:
        An image of mode RGB that has been read completely.

    Raises:
        CotamError: the file cannot be read, is not an image, is damaged, or is too large.
    """
    name = "The image" if isinstance(source, bytes) else os.fspath(source)
    try:
        content = source if isinstance(source, bytes) else read_bytes(Path(source))
        return decode(content, maximum_pixels)[0]
    except UnusableImageError as error:
        raise CotamError(f"{name} {error}.") from None
    except OSError as error:
        raise CotamError(f"{name} cannot be read ({error.strerror}).") from None


def read_bytes(path: Path) -> bytes:
    """Read a file that should be an image.

    Raises:
        UnusableImageError: it is missing, a folder, too large for an image, or may not be read.
        OSError: the disk or the network failed.
    """
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise UnusableImageError(f"has more than {MAXIMUM_BYTES >> 20} MiB, which is no image that can be used")
        return path.read_bytes()
    except FileNotFoundError:
        raise UnusableImageError("does not exist") from None
    except IsADirectoryError:
        raise UnusableImageError("is a folder, not an image file") from None
    except PermissionError as error:
        raise UnusableImageError(f"cannot be read ({error.strerror})") from None


def decode(content: bytes, maximum_pixels: int = MAXIMUM_PIXELS) -> tuple[Image.Image, str | None]:
    """Turn the bytes of an image file into what a person sees (see `open_image`).

    Returns:
        The image (mode RGB, no metadata), and "jpg" or "png" if the bytes are already a plain file of that kind, which
        any reader shows like this; None if something had to be done.

    Raises:
        UnusableImageError: the bytes are not an image, are damaged, or hold too many pixels.
    """
    if not content:
        raise UnusableImageError("is empty")
    limit = min(maximum_pixels, 2 * Image.MAX_IMAGE_PIXELS)  # beyond the latter Pillow refuses by itself
    too_large = f"has more than {limit} pixels"
    # lmms-eval, where it is imported, has Pillow fill files that were cut short with grey, for the whole process.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > limit:
                raise UnusableImageError(too_large)
            image.load()
            return _as_seen(image, eight_bits=image.format != "PNG" or content[24] == 8)
    except UnusableImageError:
        raise
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise UnusableImageError(f"is not an image of a known format ({known}), or is damaged") from None
    except Image.DecompressionBombError:
        raise UnusableImageError(too_large) from None
    except Exception as error:  # decoders of damaged files raise anything: OSError, SyntaxError, struct.error, ...
        raise UnusableImageError(f"is damaged ({str(error) or type(error).__name__})") from None


def _as_seen(image: Image.Image, eight_bits: bool) -> tuple[Image.Image, str | None]:
    profile = image.info.get("icc_profile")
    coloured = bool(profile) and not _is_srgb(profile)
    turn = _UPRIGHT.get(_orientation(image))
    kind = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}.get(image.format or "")
    plain = image.mode == "RGB" and eight_bits and not (turn is not None or coloured or image.has_transparency_data)

    if image.mode in _SIXTEEN_BITS:
        image = _to_eight_bits(image)
    elif image.mode == "F":
        raise UnusableImageError("holds floating-point numbers rather than colours; save it with 8 bits per channel")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    image = _to_srgb(image, profile if coloured else None)
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}  # profiles and EXIF no longer hold
    return image, kind if plain else None


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # EXIF that cannot be parsed says nothing, and the picture is fine without
        return 1


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (which Pillow also reads as mode I) to mode L; Pillow's own conversion clips at 255."""
    values = np.asarray(image)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise UnusableImageError("holds 32-bit numbers rather than colours; save it with 8 bits per channel")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _is_srgb(profile: bytes) -> bool:
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError):
        return True  # a broken profile says nothing
    return "srgb" in name.lower()


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB in sRGB; a profile that does not fit the picture is left out, as image viewers do."""
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")
