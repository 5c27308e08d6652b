"""Videos over the wire: every frame coded on its own, all frames of a clip in one `.cotamv` file (paper, appendix A.7).

One clip is in memory at a time.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from components.codec import video_container
from components.evaluation.clips import clip_names, open_clip
from components.evaluation.coding import Coder
from components.evaluation.pictures import psnr
from components.evaluation.rate import Coded, Job
from components.evaluation.streams import CLIPS, COTAM, Files, Setting


def clip_jobs(settings: Iterable[Setting], codec: str) -> list[Job]:
    """The codec alone and cotam, of all `settings`: the yardsticks are picture formats."""
    return [Job(setting, CLIPS) for setting in settings if setting.method in (codec, COTAM)]


def code_clips(coder: Coder, setting: Setting, folder: Path) -> Coded:
    """Encode, decode, measure the clips of a folder; the PSNR is over all frames of a clip together.

    Raises:
        CotamError: there are no clips, or one is damaged.
    """
    from components.codec.video import encode_video

    files: Files = {}
    headers, ratios, encoded = [], [], 0
    for name in clip_names(folder):
        clip = open_clip(folder, name)
        levels = coder.guide(clip.frames) if setting.method == COTAM else None
        files[name] = encode_video(coder.codec, clip.frames, int(setting.quality), levels, clip.times)
        headers.append(header_bits(files[name]))
        decoded = [one.image for one in coder.decode_clip(name, files[name])]
        ratios.append(round(psnr(np.stack(clip.frames), np.stack(decoded)), 4))
        encoded += len(clip.frames)
    return Coded(files, [8 * len(content) for content in files.values()], headers, ratios, encoded)


def header_bits(content: bytes) -> int:
    """Bits of a `.cotamv` file that are no coded pixels: its head and index."""
    video, _ = video_container.unpack(content)
    return 8 * (len(content) - 4 * sum(frame.words for frame in video.frames))
