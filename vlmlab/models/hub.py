"""The Hugging Face hub: nothing is fetched unless asked, and where it cannot be, that takes one line."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from .weights import first_line

PREFIX = "hf-hub:"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No log lines of hub, transformers and open_clip meanwhile: what goes wrong is said once, by an error."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Nothing of the hub's client reaches for a network meanwhile, not even to ask what it runs under."""
    try:
        from huggingface_hub import constants
    except ImportError:
        yield
        return
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def cached(name: str) -> Path:
    """The folder of "hf-hub:owner/name" in the hub's cache on this machine. ValueError says how to fetch it."""
    repo = name.removeprefix(PREFIX)
    try:
        from huggingface_hub import snapshot_download

        with offline():
            return Path(snapshot_download(repo, local_files_only=True))
    except Exception as e:
        raise ValueError(
            f"{repo} of huggingface.co is not on this machine and load fetches nothing of it: "
            f"`hf download {repo} --local-dir FOLDER` does, then load('FOLDER') ({type(e).__name__})"
        ) from e


def is_here(about: dict) -> bool:
    """Whether the weights of a tag of open_clip lie on this machine."""
    repo, _, file = about.get("hf_hub", "").rpartition("/")
    if not repo:
        return (Path("~/.cache/clip").expanduser() / Path(about.get("url", "")).name).is_file()
    from huggingface_hub import try_to_load_from_cache

    names = [file, f"{file.rpartition('.')[0]}.safetensors"] if file else []
    names = names or ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    return any(isinstance(try_to_load_from_cache(repo, n), str) for n in names)


def unreachable() -> str:
    """Why nothing can be fetched, in a few words; "" where it can."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            return f"{variable} is set"
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:  # one look: the hub's own client tries six times for each file
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception as e:
        return first_line(e)
    return ""


def check_reach(what: str, about: dict) -> None:
    """ValueError when the weights of a tag are not on this machine and cannot be fetched either."""
    if is_here(about):
        return
    if why := unreachable():
        repo = about.get("hf_hub", "").rpartition("/")[0]
        how = f"`hf download {repo}` where there is a network" if repo else f"download {about.get('url')}"
        raise ValueError(
            f"the weights {what} could not be fetched from {repo or about.get('url')} ({why}); "
            f"{how}, and pass the file as `pretrained`"
        )
