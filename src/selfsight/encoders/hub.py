"""Files of the Hugging Face hub, through its ordinary cache: HF_HOME, HF_HUB_OFFLINE and revisions are the hub client's own."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from huggingface_hub import _CACHED_NO_EXIST, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from selfsight.errors import WeightsError

_REACH_SECONDS = 5


def cached(repository: str, name: str, revision: str | None = None) -> Path | None:
    """A file of a repository that lies on this machine already; of a branch, the state that was last fetched."""
    found = try_to_load_from_cache(repository, name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def known_missing(repository: str, name: str, revision: str | None = None) -> bool:
    """Whether the hub once said that the repository has no such file."""
    return try_to_load_from_cache(repository, name, revision=revision) is _CACHED_NO_EXIST


def fetched(repository: str, name: str, revision: str | None, where: str) -> Path | None:
    """A file of a repository from the cache or, once, from the hub; None where the repository has no such file.

    `WeightsError`, which begins with `where`, for a repository or revision that does not exist, one that needs a login, and a
    hub that cannot be reached.
    """
    try:
        if (path := cached(repository, name, revision)) is not None:
            return path
        if not reachable(constants.ENDPOINT):
            if _holds_any(repository, revision):
                return None
            raise WeightsError(
                f"{where}: '{repository}'{_at(revision)} is not in the cache of this machine ({constants.HF_HUB_CACHE}), and the "
                "model hub cannot be reached; without a network use efficientnet-lite0, a run folder or a folder of its files"
            )
        return Path(hf_hub_download(repository, name, revision=revision))
    except HFValidationError:
        raise WeightsError(
            f"{where}: '{repository}' is neither a folder here nor a hub id such as facebook/dinov2-small"
        ) from None
    except GatedRepoError:
        raise WeightsError(
            f"{where}: '{repository}' is given to those alone who accepted its licence; do so on its page, then log in with "
            "'hf auth login'"
        ) from None
    except RevisionNotFoundError:
        raise WeightsError(f"{where}: '{repository}' has no revision '{revision}'") from None
    except RepositoryNotFoundError:
        raise WeightsError(f"{where}: the model hub has no repository '{repository}', or it is private") from None
    except LocalEntryNotFoundError as error:
        raise WeightsError(f"{where}: '{name}' of '{repository}' cannot be fetched ({str(error).splitlines()[0]})") from None
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(f"{where}: '{name}' of '{repository}' cannot be fetched ({str(error).splitlines()[0]})") from None


def reachable(url: str) -> bool:
    """One try of a few seconds, in place of the hub client's own five."""
    if constants.HF_HUB_OFFLINE or not url.startswith("http"):
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_REACH_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True  # it answered
    except OSError:
        return False


def _holds_any(repository: str, revision: str | None) -> bool:
    """Whether this revision has been fetched, as far as it was needed."""
    return cached(repository, "config.json", revision) is not None


def _at(revision: str | None) -> str:
    return f" at revision '{revision}'" if revision else ""
