"""`till completion`: what a shell needs to complete commands, options, and names that the API knows."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import ConfigError
from tillstream.cli.option import DryRunOption
from tillstream.cli.output import note, print_lines

group = typer.Typer(help="Completion in the shell: commands, options, and the names that the API knows.",
                    no_args_is_help=True)  # fmt: skip

PROGRAM = "till"
VARIABLE = "_TILL_COMPLETE"

# Typer's own would let the shell split names at spaces and expand what looks like a pattern. Bash 3.2 knows it all.
BASH = f"""\
_till_completion() {{
    local word IFS=$' \\t\\n'
    COMPREPLY=()
    while IFS= read -r word; do
        [[ -n $word ]] || continue
        case ${{COMP_WORDS[COMP_CWORD]}} in
            \\"* | \\'*) ;;
            *) printf -v word '%q' "$word" ;;
        esac
        COMPREPLY+=("$word")
    done < <(env COMP_WORDS="${{COMP_WORDS[*]}}" COMP_CWORD="$COMP_CWORD" {VARIABLE}=complete_bash "$1" 2>/dev/null)
}}

complete -o default -F _till_completion {PROGRAM}"""


class Shell(StrEnum):
    """A shell that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


# Where Typer puts it, and what it adds a line to.
_PLACES: dict[Shell, tuple[str, str]] = {
    Shell.BASH: (f"~/.bash_completions/{PROGRAM}.sh", "~/.bashrc"),
    Shell.ZSH: (f"~/.zfunc/_{PROGRAM}", "~/.zshrc"),
    Shell.FISH: (f"~/.config/fish/completions/{PROGRAM}.fish", ""),
}
ShellArgument = Annotated[Shell | None, typer.Argument(help="Else that of the variable SHELL.")]


def know_shells() -> None:
    """Let commands answer a shell that completes."""
    from typer.completion import completion_init  # type: ignore[attr-defined]  # it says nothing of what it exports

    completion_init()


@group.command("show")
def show(shell: ShellArgument = None) -> None:
    """
    Print the script that a shell needs, such as for `eval "$(till completion show bash)"`.

    Names of connectors and ids of runs are asked of the API while one types, for a second at most.
    """
    print_lines([_script(shell or _detected())])


@group.command("install")
def install(shell: ShellArgument = None, dry_run: DryRunOption = False) -> None:
    """Put the script where the shell finds it; new shells complete then. Doing so again changes nothing more."""
    chosen = shell or _detected()
    place, started_by = _PLACES[chosen]
    if dry_run:
        note(f"would write {place}" + (f", and a line in {started_by} that reads it" if started_by else ""))
        return
    from typer.completion import install as write  # type: ignore[attr-defined]  # it says nothing of what it exports

    try:
        if chosen is Shell.BASH:
            path = _install_bash()
        else:
            _, path = write(shell=chosen.value, prog_name=PROGRAM, complete_var=VARIABLE)
    except OSError as exc:
        raise ConfigError(
            f"{exc.filename}: cannot be written: {exc.strerror}", hint="`till completion show` prints it"
        ) from exc
    note(f"completion of {chosen.value} is in {path}; new shells have it")


def _install_bash() -> Path:
    place, started_by = (Path(each).expanduser() for each in _PLACES[Shell.BASH])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{BASH}\n", encoding="utf-8")
    line = f"source {shlex.quote(str(place))}"
    before = started_by.read_text(encoding="utf-8") if started_by.exists() else ""
    if line not in before:
        with started_by.open("a", encoding="utf-8") as opened:
            opened.write(f"{line}\n" if before.endswith("\n") or not before else f"\n{line}\n")
    return place


def _script(shell: Shell) -> str:
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # it says nothing of what it exports

    if shell is Shell.BASH:
        return BASH
    return get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell.value)


def _detected() -> Shell:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in list(Shell):
        raise typer.BadParameter(f"SHELL names none of {', '.join(Shell)}: name one", param_hint="shell")
    return Shell(name)
