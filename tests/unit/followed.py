"""A page as somebody follows it: its files are written, its commands and programs run, in order."""

import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from align_cache.cli import main

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The blocks of code of a page: what they are written in, and what they hold."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.finditer(r"^```(\w+)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        yield block[1], block[2]


def commands(block: str) -> Iterator[str]:
    """The lines of a shell block, without comments and without the ends of lines that go on."""
    for line in block.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield shlex.join(words)


def follow(
    page: str, *, passed_over: Collection[str] = (), instead: Mapping[str, Callable[[], None]] | None = None
) -> list[str]:
    """Do what a page says in the working folder, and return the commands that were run.

    Blocks of ``toml`` are files and begin with their name in a comment; ``sh`` are commands, ``python`` is
    typed into one session; anything else, ``text`` above all, is what came out. ``passed_over`` are the
    beginnings of commands that are not run, ``instead`` is done in a command's place.
    """
    instead = instead or {}
    done, session = [], {"__name__": "__main__"}
    for language, block in blocks(page):
        if language == "toml":
            name = re.match(r"# (\S+\.toml)\n", block)
            assert name, f"{page}: a file without a name: {block}"
            Path(name[1]).write_text(block, encoding="utf-8")
        elif language == "python":
            exec(compile(block, page, "exec"), session)
        elif language == "sh":
            for line in commands(block):
                if line.startswith(tuple(passed_over)):
                    continue
                program, *words = shlex.split(line)
                assert program == "align-cache", f"{page}: cannot run {line}"
                if line in instead:
                    instead[line]()
                else:
                    assert main(words) == 0, line
                done.append(line)
    return done
