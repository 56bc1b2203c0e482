"""Commands beside the entry points: look at data, see the cache, time the machine, open the UI."""

from __future__ import annotations

import sys

import click

from scenetrack.cli.verbosity import (
    example,
    prepare_process,
    show_help_without_command,
    voice_options,
)
from scenetrack.config import DEVICES
from scenetrack.errors import InputError


def tools() -> list[click.Command]:
    """``data check``, ``cache``, ``bench vgg16`` and ``ui``."""
    return [_data_group(), _cache_group(), _bench_group(), _ui_command()]


def _data_group() -> click.Group:
    group = click.Group(
        name="data",
        help="Look at a data set.",
        params=voice_options(),
        callback=show_help_without_command,
        invoke_without_command=True,
    )
    check = click.Command(
        name="check",
        help=(
            "Count the images of FOLDER (or demo, or mit8) by class and split and report sizes, "
            "unreadable files, duplicates, what is passed over, and whether it is the official "
            "MIT 8-scene split."
        ),
        epilog=example("scenetrack data check photos"),
        params=[click.Argument(["folder"]), *voice_options()],
        callback=_check_data,
    )
    group.add_command(check)
    return group


def _check_data(folder: str) -> None:
    prepare_process()
    from scenetrack.data.catalog import find_data
    from scenetrack.data.check import check_folder, format_report

    report = check_folder(find_data(folder)[1])
    click.echo(format_report(report))
    if report.problems:
        raise click.exceptions.Exit(InputError.exit_code)


def _cache_group() -> click.Group:
    group = click.Group(
        name="cache",
        help="See and clear what is kept to be found again: images, descriptors, demo data.",
        epilog=example("scenetrack cache", "scenetrack cache clear images --yes"),
        params=voice_options(),
        callback=_list_cache_without_command,
        invoke_without_command=True,
    )
    listing = click.Command(
        name="list",
        help="What is kept, how large it is and when it was last used. The same as no command.",
        epilog=example("scenetrack cache list"),
        params=voice_options(),
        callback=_list_cache,
    )
    clear = click.Command(
        name="clear",
        help=(
            "Delete what is kept of KIND, the first word of a line of the list; without it all "
            "but checkpoints and mit8. Arrays that a process has open stay."
        ),
        epilog=example("scenetrack cache clear", "scenetrack cache clear images --yes"),
        params=[
            click.Argument(["kind"], required=False, default=""),
            click.Option(["-y", "--yes"], is_flag=True, help="Do not ask."),
            *voice_options(),
        ],
        callback=_clear_cache,
    )
    group.add_command(listing)
    group.add_command(clear)
    return group


def _list_cache_without_command() -> None:
    if click.get_current_context().invoked_subcommand is None:
        _list_cache()


def _list_cache() -> None:
    prepare_process()
    from scenetrack.cache.inventory import format_holdings, holdings

    click.echo(format_holdings(holdings()))


def _clear_cache(kind: str, yes: bool) -> None:
    prepare_process()
    from scenetrack.cache import format_size
    from scenetrack.cache.inventory import check_kind, clear

    check_kind(kind)
    if not (yes or _agreed(kind)):
        click.echo("nothing was deleted")
        return
    done = clear(kind)
    click.echo(f"freed {format_size(done.freed)}")
    for what in done.in_use:
        click.echo(f"in use and left: {what}")


def _agreed(kind: str) -> bool:
    if not sys.stdin.isatty():
        raise InputError(
            "a yes is required before the cache is cleared, and nobody can be asked here: add --yes"
        )
    what = f"all {kind}" if kind else "all but checkpoints and mit8"
    try:
        return click.confirm(f"Delete {what} from the cache?", err=True)
    except click.Abort as error:
        raise KeyboardInterrupt from error


def _bench_group() -> click.Group:
    group = click.Group(
        name="bench",
        help="Time this machine.",
        params=voice_options(),
        callback=show_help_without_command,
        invoke_without_command=True,
    )
    vgg16 = click.Command(
        name="vgg16",
        help=(
            "Time VGG-16 forward and backward on images of 224 x 224 pixels with Keras on "
            "TensorFlow, and lay it beside published figures. 16 images need about 4 GB."
        ),
        epilog=example("scenetrack bench vgg16 --batch 4 --device cpu"),
        params=[
            click.Option(
                ["--batch"],
                type=click.IntRange(1, 1024),
                default=16,
                show_default=True,
                help="Images in a batch.",
            ),
            click.Option(
                ["--device"],
                type=click.Choice(DEVICES),
                default="auto",
                show_default=True,
                help="Where TensorFlow runs; gpu fails without one.",
            ),
            click.Option(
                ["--repeats"],
                type=click.IntRange(1, 1000),
                help="Passes to take the median of.  [default: as fit into a minute]",
            ),
            *voice_options(),
        ],
        callback=_bench_vgg16,
    )
    group.add_command(vgg16)
    return group


def _bench_vgg16(batch: int, device: str, repeats: int | None) -> None:
    prepare_process()
    from scenetrack.networks.keras_import import import_keras
    from scenetrack.networks.vgg16_benchmark import bench_vgg16

    import_keras()
    click.echo(bench_vgg16(batch, device, repeats))


def _ui_command() -> click.Command:
    return click.Command(
        name="ui",
        help="Open the MLflow UI on the store in use (MLFLOW_TRACKING_URI, else ./mlflow.db).",
        epilog=example("scenetrack ui --port 5001"),
        params=[
            click.Option(["--host"], default="127.0.0.1", show_default=True, help="Address."),
            click.Option(
                ["--port"],
                type=click.IntRange(1, 65535),
                default=5000,
                show_default=True,
                help="Port.",
            ),
            *voice_options(),
        ],
        callback=_open_ui,
    )


def _open_ui(host: str, port: int) -> None:
    prepare_process()
    from scenetrack.tracking import open_ui

    open_ui(host, port)
