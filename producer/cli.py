"""``lorapool``: the command line of agents and operators.

Puts the commands together and decides what an error looks like: one red line on stderr (JSON with --json) and exit
code 1 when the pool or the job said no, 2 when the command line is wrong, 130 on Ctrl-C; never a traceback.
"""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from lorapool.producer.commands import adapters, batches, fleet, jobs, keys, publishing, schedule, upkeep
from lorapool.producer.commands.cost import cost
from lorapool.producer.commands.gateway import gateway
from lorapool.producer.commands.options import Version
from lorapool.producer.commands.render import failure
from lorapool.producer.commands.up import up

USAGE = 2


class Commands(TyperGroup):
    """The root group; says what is wrong with a command line in one line."""

    def main(self, *args: Any, **options: Any) -> Any:
        """As click's, with our own way to complain."""
        standalone = options.get("standalone_mode", True)
        options["standalone_mode"] = False
        if not standalone:
            return super().main(*args, **options)
        try:
            code = super().main(*args, **options)
        except BrokenPipeError:
            code = 1
        except Exception as problem:
            if not hasattr(problem, "format_message"):  # ClickException, of whichever click this typer brings
                raise
            given = args[0] if args else options.get("args")
            code = _complain(problem, "--json" in (sys.argv[1:] if given is None else given))
        sys.exit(code if isinstance(code, int) else 0)


def _complain(problem: Any, as_json: bool) -> int:
    if type(problem).__name__ == "NoArgsIsHelpError":
        problem.show()
        return USAGE
    context, message = getattr(problem, "ctx", None), problem.format_message().rstrip(".")
    hint = f"; see {context.command_path} --help" if context is not None else ""
    if context is not None and context.parent is None and "No such option" in message:
        hint = "; options come after the command: lorapool submit --help"
    failure("UsageError", message + hint, as_json=as_json)
    return USAGE


app = typer.Typer(
    cls=Commands,
    name="lorapool",
    help="Send jobs to LoRA adapters and look after their pool. Every option is also an environment variable: "
    "--redis-url is LORAPOOL_REDIS_URL. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _lorapool(version: Version = False) -> None:
    """What comes before a command."""


app.command(rich_help_panel="Jobs")(jobs.submit)
app.command(rich_help_panel="Jobs")(jobs.result)
app.command(rich_help_panel="Jobs")(jobs.job)
app.command(rich_help_panel="Jobs")(jobs.cancel)
app.add_typer(batches.app, name="batch", rich_help_panel="Jobs")
app.add_typer(schedule.app, name="schedule", rich_help_panel="Jobs")
app.add_typer(adapters.app, name="adapters", rich_help_panel="Pool")
adapters.app.command()(publishing.publish)
adapters.app.command("import")(publishing.import_)
adapters.app.command()(publishing.verify)
app.add_typer(keys.app, name="keys", rich_help_panel="Pool")
app.command(rich_help_panel="Pool")(fleet.stats)
app.command(rich_help_panel="Pool")(fleet.workers)
app.command(rich_help_panel="Pool")(cost)
app.command(rich_help_panel="Pool")(up)
app.command(rich_help_panel="Pool")(gateway)
for command in (upkeep.pause, upkeep.resume, upkeep.limits, upkeep.dead, upkeep.redrive, upkeep.purge, upkeep.fsck):
    app.command(rich_help_panel="Upkeep")(command)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
