"""One snapshot of a hub repository: asked for once, then read from disk like any other folder."""

import logging
import shlex
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from align_cache.errors import OfflineError, SourceError

RepoType = Literal["dataset", "model"]

_PROBE_S = 1.2
"""Longest wait for the first connection, name resolution included; the hub's own client waits 10 s."""

_BACKOFF_S = (1.0, 2.0, 4.0, 8.0)
"""Pauses between attempts. The client retries the bytes of a file by itself, but not the listing."""

_OTHER_WAY = {
    "dataset": "or pass --data-dir FOLDER with a copy of the data",
    "model": "or pass --weights NAME=FOLDER with a copy of the model",
}

logger = logging.getLogger(__name__)


def fetch_snapshot(
    repo_id: str,
    *,
    repo_type: RepoType,
    revision: str | None = None,
    allow_patterns: Sequence[str] | None = None,
    needed: Sequence[str] | None = None,
) -> tuple[Path, str]:
    """Return the local folder of a hub repository and the commit it holds, fetching what is missing.

    The hub is asked for the commit of ``revision`` once; every file then comes from that commit. Without
    a network, or with ``HF_HUB_OFFLINE=1``, what was fetched before is used and a warning is logged.

    Parameters
    ----------
    repo_id : str
        ``owner/name``.
    repo_type : {"dataset", "model"}
    revision : str, optional
        Branch, tag or commit; None is the default branch.
    allow_patterns : sequence of str, optional
        Globs of the files wanted; None is all of them.
    needed : sequence of str, optional
        Globs of those without which the others are of no use; None is ``allow_patterns``. Offline, a copy
        that holds none of them (it was fetched for something else, or in part) counts as not fetched.

    Returns
    -------
    (Path, str)
        The snapshot's folder and its 40-digit commit sha. The folder may hold other files too.

    Raises
    ------
    OfflineError
        Within two seconds where there is no network and the files were not fetched before; after the
        last attempt where the connection keeps breaking. The hint is the command that fetches them.
    SourceError
        If the repository, the revision or every file matching the patterns does not exist, or the disk
        refuses the files.
    """
    from huggingface_hub import constants

    online = is_reachable(constants.ENDPOINT)
    try:
        folder = _attempts(repo_id, repo_type, revision, allow_patterns, online=online)
        if not online and not _holds(folder, needed or allow_patterns):
            raise _GaveUpError
    except _GaveUpError as error:
        found = f"the connection fails ({error})" if online else "the hub cannot be reached from here"
        command = fetch_command(
            repo_id, repo_type=repo_type, revision=revision, allow_patterns=allow_patterns
        )
        raise OfflineError(
            f"{repo_type} {repo_id} is not in the local hub cache and {found}",
            hint=f"fetch it where there is a network: {command}; {_OTHER_WAY[repo_type]}",
        ) from error
    if not _holds(folder, allow_patterns):
        raise SourceError(f"{repo_type} {repo_id} at {folder.name[:12]} holds no file like {allow_patterns}")
    if not online:
        logger.warning("%s: no network, using the copy fetched before (%s)", repo_id, folder.name[:12])
    return folder, folder.name


def fetch_command(
    repo_id: str,
    *,
    repo_type: RepoType,
    revision: str | None = None,
    allow_patterns: Sequence[str] | None = None,
) -> str:
    """Return the shell command that puts a snapshot into the local hub cache."""
    words = ["hf", "download", repo_id]
    if repo_type != "model":
        words += ["--repo-type", repo_type]
    if revision is not None:
        words += ["--revision", revision]
    for pattern in allow_patterns or ():
        words += ["--include", pattern]
    return shlex.join(words)


def fetched_snapshot(
    repo_id: str, *, repo_type: RepoType, revision: str | None = None, needed: Sequence[str]
) -> Path | None:
    """Return the folder of a snapshot that was fetched before; None where it was not. The hub is not asked.

    Parameters
    ----------
    repo_id, repo_type, revision
        As :func:`fetch_snapshot` takes them.
    needed : sequence of str
        Globs; a copy that holds no file like any of them counts as not fetched.
    """
    try:
        folder = _attempts(repo_id, repo_type, revision, None, online=False)
    except _GaveUpError:
        return None
    return folder if _holds(folder, needed) else None


def is_reachable(url: str) -> bool:
    """Say within two seconds whether a connection to ``url``, or to the proxy before it, can be opened.

    False without an attempt where ``HF_HUB_OFFLINE`` is set.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    connected = threading.Event()
    # Name resolution has no timeout of its own: the attempt is made aside and abandoned when it takes long.
    attempt = threading.Thread(target=_connect, args=(_first_hop(url), connected), daemon=True)
    attempt.start()
    attempt.join(_PROBE_S)
    return connected.is_set()


class _GaveUpError(Exception):
    """The last attempt failed for a passing reason; the message is its first line."""


def _holds(folder: Path, patterns: Sequence[str] | None) -> bool:
    """Say whether a snapshot has a file like any of ``patterns``, matched as the hub's client does."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return any(patterns is None or any(fnmatch(file, each) for each in patterns) for file in files)


def _attempts(
    repo_id: str, repo_type: RepoType, revision: str | None, patterns: Sequence[str] | None, *, online: bool
) -> Path:
    from huggingface_hub import snapshot_download

    last: Exception | None = None
    for pause_s in (0.0, *_BACKOFF_S) if online else (0.0,):
        time.sleep(pause_s)
        try:
            folder = snapshot_download(
                repo_id,
                repo_type=repo_type,
                revision=revision,
                allow_patterns=None if patterns is None else list(patterns),
                local_files_only=not online,
            )
        except Exception as error:  # the client's HTTP library, so the base of its errors, varies by version
            if (refusal := _refusal(error, repo_id, revision)) is not None:
                raise refusal from error
            last = error
            if _meets_a_stranger(error):
                break
        else:
            return Path(folder)
    raise _GaveUpError(str(last).partition("\n")[0]) from last


def _refusal(error: Exception, repo_id: str, revision: str | None) -> SourceError | None:
    """Return what to raise for an error that trying again cannot mend, None for a passing one."""
    from huggingface_hub import errors as hub

    if isinstance(error, hub.GatedRepoError):
        return SourceError(
            f"{repo_id} wants its terms accepted first", hint="accept them on its page, then: hf auth login"
        )
    if isinstance(error, hub.RepositoryNotFoundError | hub.HFValidationError):
        return SourceError(
            f"the hub has no repository {repo_id!r} that you can see",
            hint="check the name; a private one needs: hf auth login",
        )
    if isinstance(error, hub.RevisionNotFoundError):
        return SourceError(f"{repo_id} has no revision {revision!r}")
    # An errno outside the network's two families comes from writing the files: disk full, no permission.
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError | TimeoutError):
        return SourceError(f"{repo_id} cannot be stored in the hub cache: {error.strerror}")
    return None


def _meets_a_stranger(error: BaseException | None) -> bool:
    """Say whether TLS failed: a login portal or an intercepting proxy answers, and will again."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _connect(address: tuple[str, int], connected: threading.Event) -> None:
    try:
        with socket.create_connection(address, timeout=_PROBE_S):
            connected.set()
    except OSError:
        return


def _first_hop(url: str) -> tuple[str, int]:
    """Return host and port of the proxy that the environment names for ``url``, else of the server itself."""
    hop = urlsplit(url)
    proxy = None if proxy_bypass(hop.hostname or "") else getproxies().get(hop.scheme)
    if proxy is not None:
        hop = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return hop.hostname or "", hop.port or (443 if hop.scheme == "https" else 80)
