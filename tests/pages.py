"""The pages of the project, taken apart: their prose, their fenced blocks, and the commands that they say to type.

A page is a Markdown file of the root, of a room or of tests/.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("infra", "pipeline", "model", "jobs")
FOLDERS = (ROOT, *(ROOT / name for name in (*ROOMS, "tests")))
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder in FOLDERS
    for path in sorted(folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))
}
SHELLS = ("bash", "sh", "shell", "console")
# What begins a line that is to be typed: programs of this project or that it installs, whose arguments are checked, and
# others. A block of no language whose first line begins with none of these displays output, or a file.
CHECKED = ("python", "make", "ray", "mlflow", "pip", "hp-vae-gan")
OTHERS = """
apt apt-get awk aws bash cat cd chmod chown cp curl df docker du echo env exit export ffmpeg gcloud git grep gsutil head
helm kill kind kubectl ln ls minikube mkdir mv nvidia-smi openssl printf psql read rm rsync sacct salloc sbatch scancel
scontrol scp sed set sha256sum sinfo sleep sort source squeue srun ssh sudo tail tar tee test touch umask unrar unset
unzip uv watch wget yt-dlp
"""


@dataclass(frozen=True)
class Block:
    """A fenced block. language: what stands behind its first fence, '' for nothing."""

    language: str
    text: str

    @property
    def is_python(self) -> bool:
        """Whether it is Python to run."""
        return self.language == "python" or (not self.language and bool(re.match(r"(from|import) \w", self.text)))

    @property
    def is_session(self) -> bool:
        """Whether it is what a terminal displayed: commands behind `$ `, and what they printed."""
        return self.language in ("", *SHELLS) and bool(re.search(r"^\$ ", self.text, flags=re.MULTILINE))

    @property
    def script(self) -> str:
        """What it says to type, as a shell reads it; '' of output, of a file and of Python."""
        if self.is_python or self.language not in ("", *SHELLS):
            return ""
        if self.is_session:
            typed = re.findall(r"^\$ ((?:.*\\\n)*.*)$", self.text, flags=re.MULTILINE)
            return "".join(f"{command}\n" for command in typed)
        first = next((line for line in self.text.splitlines() if line and not line.startswith("#")), "")
        return self.text if self.language or begins_a_command(first) else ""


@dataclass(frozen=True)
class Typed:
    """One simple command, such as `make demo`: its page, the words before any pipe, and the folder that `cd` led to."""

    page: str
    words: tuple[str, ...]
    folder: str = "."
    inline: bool = False

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def begins_a_command(line: str) -> bool:
    """Whether a line is one that people type, by its first word."""
    bare = re.sub(r"^(\s*\w+=\S*)+ ", "", line).strip()
    return is_checked(bare) or bare.split(" ")[0] in OTHERS.split()


def is_checked(line: str) -> bool:
    """Whether it calls something that is of this project, or that the project installs."""
    name = line.split(" ")[0].removeprefix(".venv/bin/").removeprefix("./")
    return bool(re.fullmatch(r"python3?(\.\d+)?", name)) or name in CHECKED or name.startswith(("infra/", "tests/"))


def parts_of(page: str) -> tuple[str, list[Block]]:
    """The text of a page without its fenced blocks, and these. Raises ValueError for a fence that is not closed."""
    prose: list[str] = []
    blocks: list[Block] = []
    fence, language, inside = "", "", list[str]()
    for line in PAGES[page].splitlines():
        mark = re.match(r" *(`{3,}|~{3,})(.*)$", line)
        if not fence and mark:
            fence, language, inside = mark[1], mark[2].strip(), []
        elif fence and mark and mark[1] == fence and not mark[2]:
            blocks.append(Block(language, "".join(f"{each}\n" for each in inside)))
            fence = ""
        elif fence:
            inside.append(line)
        else:
            prose.append(line)
    if fence:
        raise ValueError(f"{page}: a block is not closed")
    return "\n".join(prose), blocks


def simple_commands(script: str) -> list[list[str]]:
    """The words of each simple command of a script, without assignments before it, redirections and here-documents."""
    lines = iter(re.sub(r"\\\n\s*", " ", script).splitlines())
    found: list[list[str]] = []
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        command: list[str] = []
        found.append(command)
        words = iter(lexer)
        for word in words:
            if word.startswith("#"):
                break
            if word.startswith("<<"):
                end = next(words).lstrip("-")
                while next(lines).strip() != end:
                    pass
            elif set(word) & set("<>") and set(word) <= set("<>&|"):
                next(words)
            elif set(word) <= set("&|;()") and word:
                command = []
                found.append(command)
            elif command or not (word in ("do", "then", "else", "sudo", "exec", "time") or re.match(r"\w+=", word)):
                command.append(word)
    return [
        command for command in found if command and command[0] not in ("for", "done", "if", "fi", "while", "}", "{")
    ]


def typed_in(page: str) -> list[Typed]:
    """Every simple command of a page: of its blocks, and of its text if it calls something of the project."""
    prose, blocks = parts_of(page)
    found, folder = [], "."
    for block in blocks:
        for words in simple_commands(block.script):
            found.append(Typed(page, tuple(words), folder))
            if words[0] == "cd":
                folder = os.path.normpath(os.path.join(folder, *words[1:]))
    for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose):
        line = " ".join(code.split())
        if is_checked(line) and " " in line:
            found += [Typed(page, tuple(words), inline=True) for words in simple_commands(line)]
    return found


def anchors_of(page: str) -> set[str]:
    """What `#…` of a link to the page may name: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", parts_of(page)[0], re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
