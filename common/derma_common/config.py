"""Resolve the settings: defaults, `derma.toml`, environment, flags, in this order. The only place that reads them.

A wrong key or value is one line that names the nearest right one.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from derma_common.errors import ConfigError
from derma_common.settings import CAMERA_NAME, SMALLEST_TILE_PX, Camera, Settings, TilePx

ENV_PREFIX = "DERMA_"
SECTIONS = tuple(f.name for f in fields(Settings) if f.name != "camera")
PLACED = ("capture", "detector", "classifier", "sink", "cloud")
_PLACEMENT = {"priority": (-20, 19), "realtime": (0, 99)}
_AT_LEAST: dict[str, float] = {
    "capture.window": 1, "capture.window_live": 1, "capture.deadline_s": 0.05, "capture.threads": 1,
    "capture.retry_after_s": 0.5, "capture.open_timeout_s": 0.1, "capture.read_timeout_s": 0.1,
    "detector.workers": 1, "detector.threads": 0, "detector.live_tiles": 0, "detector.gpu": -1,
    "classifier.workers": 0, "classifier.threads": 0, "classifier.room": 1, "classifier.gpu": -1,
    "supervisor.hang_after_s": 0.5, "supervisor.start_timeout_s": 1, "supervisor.stop_timeout_s": 0.1,
    "supervisor.fruitless_starts": 1, "supervisor.back_off_s": 0.01, "supervisor.poison_deaths": 1,
    "tracing.sample_ratio": 0,
    "cloud.timeout_s": 0.1, "cloud.picture_px": 32, "cloud.picture_every_s": 0, "cloud.outbox_mb": 1,
    "cloud.outbox_days": 0, "cloud.room": 1, "cloud.within_s": 0.05,
    "camera.width_px": 0, "camera.height_px": 0, "camera.fps": 0,
    "detector.gpu_percent": 1, "detector.gpu_memory_mb": 0,
    "classifier.gpu_percent": 1, "classifier.gpu_memory_mb": 0,
    **{f"{section}.{key}": low for section in PLACED for key, (low, _) in _PLACEMENT.items()},
}  # fmt: skip
_AT_MOST: dict[str, float] = {
    "classifier.workers": 64, "detector.workers": 64, "capture.window": 1024, "tracing.sample_ratio": 1,
    "cloud.picture_px": 1024, "detector.gpu_percent": 100, "classifier.gpu_percent": 100,
    **{f"{section}.{key}": high for section in PLACED for key, (_, high) in _PLACEMENT.items()},
}  # fmt: skip
_RUNNERS = ("auto", "onnx", "onnx-cuda", "onnx-tensorrt", "tensorrt")
_PRECISIONS = ("fp32", "fp16", "int8")
_ONE_OF = {
    "detector.runner": _RUNNERS, "detector.precision": _PRECISIONS,
    "classifier.runner": _RUNNERS, "classifier.precision": _PRECISIONS,
    "logging.level": ("debug", "info", "warning", "error"), "logging.format": ("human", "json"),
    "classifier.where": ("local", "remote", "both"), "cloud.pictures": ("none", "doubtful", "all"),
    "cloud.picture_encoding": ("png", "raw"), "cloud.when_full": ("discard_oldest", "refuse_new"),
}  # fmt: skip


def load_settings(
    file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any] | None = None
) -> Settings:
    """Resolve the settings. `flags` maps "section.key" to a value. Raises ConfigError."""
    table = _read_toml(file) if file else {}
    for name, text in environment.items():
        if name.startswith(ENV_PREFIX):
            section, _, key = name.removeprefix(ENV_PREFIX).lower().partition("_")
            if section in SECTIONS:  # DERMA_RUN_DATA_DIR; other DERMA_ variables are not settings
                _override(table, section, key, _from_text(section, key, text, f"environment variable {name}"))
    for dotted, value in (flags or {}).items():
        section, _, key = dotted.partition(".")
        if section == "camera":
            raise ConfigError(f"{dotted} cannot be set: cameras are sources, or [[camera]] tables of a settings file")
        _override(table, section, key, value)
    settings = settings_from(table, str(file) if file else "the settings")
    return choose_for_machine(settings, len(os.sched_getaffinity(0)))


def _override(table: dict[str, Any], section: str, key: str, value: Any) -> None:
    values = table.setdefault(section, {})
    if isinstance(values, dict):  # what is no table is refused when all is checked
        values[key] = value


def choose_for_machine(settings: Settings, cores: int) -> Settings:
    """Fill in the zeros of threads and workers so that detector and classifiers use all cores."""
    detector, classifier = settings.detector, settings.classifier
    detector_threads = detector.threads or max(1, min(8, cores // (2 * detector.workers)))
    left = max(1, cores - detector_threads * detector.workers)
    # more classifiers before more threads: B0 on one core loses nothing to synchronisation
    workers = classifier.workers or max(1, min(4, left // 2))
    threads = classifier.threads or max(1, left // workers)
    changed = _replaced(settings, "detector", threads=detector_threads)
    return _replaced(changed, "classifier", workers=workers, threads=threads)


def _replaced(settings: Settings, section: str, **values: Any) -> Settings:
    return replace(settings, **{section: replace(getattr(settings, section), **values)})


def settings_from(table: Mapping[str, Any], origin: str) -> Settings:
    """Check a table of sections against the dataclasses. Raises ConfigError naming key and remedy."""
    parts: dict[str, Any] = {}
    hints = typing.get_type_hints(Settings)
    for section, values in table.items():
        if section == "camera":
            parts["camera"] = _cameras(values, origin)
            continue
        if section not in SECTIONS:
            raise ConfigError(f"{origin}: unknown section [{section}]{_nearest(section, (*SECTIONS, 'camera'))}")
        if not isinstance(values, Mapping):
            raise ConfigError(f"{origin}: [{section}] must be a table")
        cls = hints[section]
        types = typing.get_type_hints(cls)
        for key in values:
            if key not in types:
                raise ConfigError(f"{origin}: unknown setting {section}.{key}{_nearest(key, tuple(types))}")
        checked = {k: _checked(v, types[k], f"{origin}: {section}.{k}", f"{section}.{k}") for k, v in values.items()}
        parts[section] = cls(**checked)
    return Settings(**parts)


def _cameras(values: Any, origin: str) -> tuple[Camera, ...]:
    if not isinstance(values, list):
        raise ConfigError(f"{origin}: cameras are written as [[camera]] tables")
    cameras = tuple(_camera(row, origin) for row in values)
    if len({c.name for c in cameras}) < len(cameras):
        raise ConfigError(f"{origin}: two cameras have the same name")
    return cameras


def _camera(row: Any, origin: str) -> Camera:
    types = typing.get_type_hints(Camera)
    if not isinstance(row, Mapping) or not {"name", "source"} <= set(row):
        raise ConfigError(f"{origin}: a [[camera]] needs `name` and `source`")
    name = row["name"]
    if not isinstance(name, str) or not CAMERA_NAME.match(name):
        raise ConfigError(
            f"{origin}: camera name {name!r} must be 1 to 32 of a-z 0-9 _ - and start with a letter or digit"
        )
    for key in row:
        if key not in types:
            raise ConfigError(f"{origin}: camera {name}: unknown setting {key}{_nearest(key, tuple(types))}")
    values = {**row, "source": str(row["source"])}
    tile_px = checked_tile_px(values.pop("tile_px", 0), f"{origin}: camera {name}: tile_px")
    checked = {k: _checked(v, types[k], f"{origin}: camera {name}: {k}", f"camera.{k}") for k, v in values.items()}
    return Camera(**checked, tile_px=tile_px)


def tile_px_of(text: str) -> TilePx:
    """Read a `--tile` flag. Raises ConfigError."""
    return checked_tile_px(int(text) if text.isdecimal() else text, "--tile")


def checked_tile_px(value: Any, where: str) -> TilePx:
    """Return a tile's side in px, or "auto". Raises ConfigError."""
    if value == "auto":
        return "auto"
    if type(value) is not int or (value != 0 and value < SMALLEST_TILE_PX):
        raise ConfigError(
            f'{where} must be "auto", 0 or a whole number of at least {SMALLEST_TILE_PX} px, got {value!r}'
        )
    return value


def _checked(value: Any, hint: Any, where: str, dotted: str) -> Any:
    if hint == bool | None:  # what is left out of a camera's table, or written into a run's plan
        if type(value) not in (bool, type(None)):
            raise ConfigError(f"{where} must be true or false, got {value!r}")
        return value
    if hint is float and type(value) is int:
        value = float(value)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or any(type(v) is not int or v < 0 for v in value):
            raise ConfigError(f"{where} must be a list of core numbers, such as [0, 1]")
        return tuple(value)
    if type(value) is not hint:
        raise ConfigError(f"{where} must be {_KIND.get(hint, hint)}, got {value!r}")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"{where} must be a finite number, got {value!r}")
    low, high = _AT_LEAST.get(dotted), _AT_MOST.get(dotted)
    if low is not None and value < low:
        raise ConfigError(f"{where} must be at least {low:g}, got {value!r}")
    if high is not None and value > high:
        raise ConfigError(f"{where} must be at most {high:g}, got {value!r}")
    if dotted in _ONE_OF and value not in _ONE_OF[dotted]:
        raise ConfigError(f"{where} must be one of {', '.join(_ONE_OF[dotted])}, got {value!r}")
    if dotted == "tracing.endpoint" and value and not value.startswith(("http://", "https://")):
        raise ConfigError(f"{where} must be empty or an address such as http://127.0.0.1:4318/v1/traces")
    if dotted == "camera.pixel_format" and value and not (len(value) == 4 and value.isascii()):
        raise ConfigError(f"{where} must be empty or four letters such as MJPG or YUYV, got {value!r}")
    return value


_KIND = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _from_text(section: str, key: str, text: str, where: str) -> Any:
    hint = typing.get_type_hints(typing.get_type_hints(Settings)[section]).get(key)
    try:
        if hint is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if hint in (int, float):
            return hint(text)
        if typing.get_origin(hint) is tuple:
            return [int(v) for v in text.replace(",", " ").split()]
    except (KeyError, ValueError):
        raise ConfigError(
            f"{where}: {text!r} is not {_KIND.get(hint, 'a list of core numbers') if hint else 'known'}"
        ) from None
    return text


def _nearest(word: str, right: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, right, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(right)}"


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no settings file {file}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
