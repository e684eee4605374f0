"""The command line: parse, call one library function, render.

Commands live in :mod:`.features` (extract, import), :mod:`.cache` (ls, info, verify, rm), :mod:`.runs` (fit,
demo, runs), :mod:`.sweep`, :mod:`.study`, :mod:`.judging` (eval, report, compare), :mod:`.stress`,
:mod:`.use` (search, embed, zero-shot), :mod:`.export`, :mod:`.plot`, :mod:`.view` and :mod:`.doctor`;
whatever is heavy is imported inside them, so that ``align-cache --help`` answers at once.
"""

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any

import typer

from align_cache._version import __version__
from align_cache.cli import (
    cache,
    doctor,
    export,
    features,
    judging,
    plot,
    runs,
    stress,
    study,
    sweep,
    use,
    view,
)
from align_cache.errors import AlignCacheError
from align_cache.runtime import prepare_environment

app = typer.Typer(
    name="align-cache",
    help="Frozen encoders run once; adapters trained, swept and judged on the cache.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(features.extract)
app.command()(runs.fit)
app.command()(sweep.sweep)
app.command()(study.study)
app.command("eval")(judging.evaluate)
app.command()(judging.report)
app.command()(stress.stress)
app.command()(judging.compare)
app.command()(use.search)
app.command()(use.embed)
app.command("zero-shot")(use.zero_shot)
app.command()(view.view)
app.command()(export.export)
app.command()(runs.demo)
app.command("import")(features.import_features)
app.command()(doctor.doctor)
app.add_typer(cache.cache_app, name="cache")
app.add_typer(plot.plot_app, name="plot")
app.add_typer(runs.runs_app, name="runs")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"align-cache {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Frozen encoders run once; adapters trained, swept and judged on the cache."""


_INTERRUPTED = 130


class _Terminated(BaseException):
    """SIGTERM, as an exception, so that locks are released and temporary files removed on the way out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 usage, 130 Ctrl-C, 143 SIGTERM."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    if debug:
        given.remove("--debug")  # allowed anywhere on the line
    prepare_environment()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        result = app(given, standalone_mode=False)
        if result == _INTERRUPTED:  # what some versions of typer make of Ctrl-C, without a word
            raise KeyboardInterrupt
        return result if isinstance(result, int) else 0
    except AlignCacheError as error:
        if debug:
            raise
        return _fail(error.message, error.hint, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", _way_on(given), _INTERRUPTED)
    except _Terminated:
        return _fail("terminated", _way_on(given), 143)
    except BrokenPipeError:
        return 1
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", _way_on(given), 1)
    except MemoryError:
        return _fail("out of memory", "use smaller batches (--batch-size) or --set data.rows=mmap", 1)
    except Exception as error:
        if hasattr(error, "format_message"):
            return _usage(error)
        if debug:
            raise
        return _fail(
            f"unexpected {type(error).__name__}: {error}",
            "this is a fault of align-cache: --debug shows where",
            1,
        )


def _way_on(given: Sequence[str]) -> str:
    if "fit" in given[:1]:
        return "what is finished is kept; go on with: align-cache fit --resume latest"
    return "what is finished is kept; the same command goes on from there"


def _usage(error: Any) -> int:
    """Render what the parser raises: click's exceptions, which typer may carry inside it or beside it."""
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message())
        return 0
    return _fail(
        " ".join(error.format_message().split()).replace("Value error, ", ""), None, int(error.exit_code)
    )


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _fail(message: str, hint: str | None, exit_code: int) -> int:
    from rich.text import Text

    from align_cache.terminal.console import stderr

    line = Text("error: ", style="bold red").append(message, style="default")
    stderr().print(line, soft_wrap=True)
    if hint:
        stderr().print(Text(f"  {hint}", style="dim"), soft_wrap=True)
    return exit_code
