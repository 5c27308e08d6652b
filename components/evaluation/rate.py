"""What the benchmarks weigh: every image coded by every method at every quality, and what rates.json says of it.

Files are made once and kept; the rate is their size. Pictures are decoded again from the files for their PSNR. A
rate is the same whatever the number of processes, as every (method, quality, set of pictures) is coded on its own.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from components.codec.level_map import cost_bits
from components.evaluation.coding import Coder, Guide, header_bits, portions
from components.evaluation.pictures import Pictures, psnr
from components.evaluation.streams import COTAM, JPEG, WEBP, Files, Setting

BENCH, PHOTOGRAPHS = "bench", "photographs"
SCHEMA = 1


@dataclass(frozen=True)
class Job:
    """A set of pictures (a style of the benchmarks, the photographs, or the clips) to be coded by one setting."""

    setting: Setting
    pictures: str


@dataclass(frozen=True)
class Coded:
    """Files, and a number for each: bits of the whole file, bits of its header, PSNR in dB.

    `encoded` of the files were made; the others were found in the coder's cache.
    """

    files: Files
    bits: list[int]
    header_bits: list[int]
    psnr: list[float]
    encoded: int = 0


class MapCost(NamedTuple):
    """What the map of a picture costs in its file; a file without a map has none of its cells."""

    bits: float
    cells: int


def settings_of(codec: str, qualities: Mapping[str, Sequence[int]]) -> list[Setting]:
    """What is compared: the codec alone, cotam, JPEG and WebP, each at its qualities ("codec", "jpeg", "webp")."""
    of_method = {codec: qualities["codec"], COTAM: qualities["codec"], JPEG: qualities[JPEG], WEBP: qualities[WEBP]}
    return [Setting(method, str(quality)) for method, values in of_method.items() for quality in values]


def jobs_of(settings: Iterable[Setting], styles: Iterable[str], photographs: bool) -> list[Job]:
    """Every setting on the benchmarks' style; the codec, guided and not, also on the others and on photographs."""
    jobs = []
    for setting in settings:
        learned = setting.method not in (JPEG, WEBP)
        jobs += [Job(setting, style) for style in styles if learned or style == BENCH]
        if photographs and learned:
            jobs.append(Job(setting, PHOTOGRAPHS))
    return jobs


def code(coder: Coder, setting: Setting, pictures: Pictures) -> Coded:
    """Encode, decode, measure."""
    before = coder.encoded
    files = coder.encode(setting, pictures)
    decoded = coder.pictures(setting, files)
    return Coded(
        files=files,
        bits=[8 * len(content) for content in files.values()],
        header_bits=[header_bits(setting, content) for content in files.values()],
        psnr=[round(psnr(pictures[name], decoded[name]), 4) for name in files],
        encoded=coder.encoded - before,
    )


def rates(
    codec: str,
    pictures: Mapping[str, Pictures],
    coded: Mapping[Job, Coded],
    maps: Sequence[MapCost],
) -> dict[str, Any]:
    """rates.json (docs/summary-schema.md), from what was coded.

    Args:
        codec: its name.
        pictures: the sets that were coded, by name.
        coded: in the order in which it is to be written.
        maps: of each benchmark image, in the order of the images.
    """
    found = {"schema": SCHEMA, "codec": codec, "styles": rates_of_styles(pictures, coded)}
    if PHOTOGRAPHS in pictures:
        found["photographs"] = {
            "images": list(pictures[PHOTOGRAPHS]),
            "plain": list(_points(codec, pictures[PHOTOGRAPHS], coded)),
            "guided": list(_points(COTAM, pictures[PHOTOGRAPHS], coded)),
        }
    files = [result.bits for job, result in coded.items() if job.setting.method == COTAM and job.pictures == BENCH]
    found["map_bits"] = {
        "cells": statistics.mean(one.cells for one in maps),
        "mean": statistics.fmean(one.bits for one in maps),
        "max": max(one.bits for one in maps),
        "share": float(np.mean(np.array([one.bits for one in maps]) / np.array(files))),
    }
    return found


def rates_of_styles(pictures: Mapping[str, Pictures], coded: Mapping[Job, Coded]) -> dict[str, Any]:
    """`styles` of rates.json."""
    of_style: dict[str, list[tuple[Setting, Coded]]] = {}
    for job, result in coded.items():
        if job.pictures != PHOTOGRAPHS:
            of_style.setdefault(job.pictures, []).append((job.setting, result))
    return {style: rates_of_style(_pixels(pictures[style]), results) for style, results in of_style.items()}


def rates_of_style(pixels: Mapping[str, int], coded: Iterable[tuple[Setting, Coded]]) -> dict[str, Any]:
    """`styles.<style>` of rates.json.

    Args:
        pixels: of each image, or of all frames of each clip, by name.
        coded: in the order in which it is to be written.
    """
    methods: dict[str, Any] = {}
    for setting, result in coded:
        methods.setdefault(setting.method, {})[setting.quality] = {
            "bits": result.bits,
            "header_bits": result.header_bits,
            "psnr": result.psnr,
        }
    return {"images": list(pixels), "pixels": list(pixels.values()), "methods": methods}


def map_costs(guide: Guide, pictures: Pictures) -> list[MapCost]:
    """Of each picture, in their order."""
    maps = (guide([pictures[name] for name in names]) for names in portions(pictures))
    return [
        MapCost(0.0, 0) if levels is None else MapCost(cost_bits(levels), levels.size)
        for portion in maps
        for levels in portion
    ]


def _pixels(pictures: Pictures) -> dict[str, int]:
    return {name: picture.shape[0] * picture.shape[1] for name, picture in pictures.items()}


def _points(method: str, pictures: Pictures, coded: Mapping[Job, Coded]) -> Iterator[dict[str, Any]]:
    """Means over photographs, each of which counts alike."""
    pixels = np.array([picture.shape[0] * picture.shape[1] for picture in pictures.values()])
    for job, result in coded.items():
        if job.pictures == PHOTOGRAPHS and job.setting.method == method:
            bits, header = np.array(result.bits), np.array(result.header_bits)
            yield {
                "quality": int(job.setting.quality),
                "bpp": float(np.mean(bits / pixels)),
                "bpp_without_header": float(np.mean((bits - header) / pixels)),
                "psnr": statistics.fmean(result.psnr),
            }
