"""What the commands share: options, how their values are read, and how a note is said."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

CacheDir = Annotated[
    Path, typer.Option("--cache-dir", envvar="ALIGN_CACHE_DIR", help="Where features and runs are kept.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps; what is missing is refused.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, for example optim.lr=1e-3."),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="A TOML file of settings.")]
Executor = Annotated[
    Literal["local", "ray"], typer.Option(help="ray: on every node of a Ray cluster (align-cache[ray]).")
]
RayAddress = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Of the Ray cluster, or auto; a local one if absent.")
]
RunName = Annotated[str, typer.Argument(help="A run's id, the head of it, its folder, or latest.")]

DEFAULT_CACHE = Path("cache")


def split_weights(values: Sequence[str], encoders: Sequence[str]) -> dict[str, str]:
    """Read ``[ENCODER=]WHAT``; without an encoder it holds for all that are not named.

    A path may hold ``=`` too: what stands before the first is an encoder unless the whole is a path.
    """
    weights = {}
    for value in values:
        name, equals, what = value.partition("=")
        if equals and (name in encoders or not Path(value).exists()):
            weights[name] = what
        else:
            weights["*"] = value
    return weights


def print_note(line: str) -> None:
    """Say something on stderr that is neither the result nor an error."""
    from rich.text import Text

    from align_cache.terminal.console import stderr

    stderr().print(Text(f"note: {line}", style="dim"), soft_wrap=True)
