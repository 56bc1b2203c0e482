"""Commands beside the entry points: check a data set, list the cache, benchmark, open the UI."""

from __future__ import annotations

import sys

import click

from scenetrack.cli.verbosity import (
    example,
    prepare_process,
    show_help_without_command,
    verbosity_options,
)
from scenetrack.config import DEVICES
from scenetrack.errors import InputError
from scenetrack.system.terminal import visible


def tools() -> list[click.Command]:
    """Return the commands ``data``, ``cache``, ``bench`` and ``ui``."""
    return [_data_group(), _cache_group(), _bench_group(), _ui_command()]


def _data_group() -> click.Group:
    group = click.Group(
        name="data",
        help="Check a data set.",
        params=verbosity_options(),
        callback=show_help_without_command,
        invoke_without_command=True,
    )
    check = click.Command(
        name="check",
        help=(
            "Count the images of FOLDER (or demo, or mit8) by class and split and report sizes, "
            "unreadable files, duplicates, ignored files, and whether it is the official "
            "MIT 8-scene split."
        ),
        epilog=example("scenetrack data check photos"),
        params=[
            click.Argument(["folder"]),
            click.Option(
                ["--near-copies"],
                is_flag=True,
                help="Look for near copies too: re-encoded, resized, mirrored or cropped a little.",
            ),
            *verbosity_options(),
        ],
        callback=_check_data,
    )
    group.add_command(check)
    return group


def _check_data(folder: str, near_copies: bool) -> None:
    prepare_process()
    from scenetrack.data.catalog import find_data
    from scenetrack.data.check import check_folder, format_report

    root = find_data(folder)[1]
    report = check_folder(root)
    click.echo(format_report(report))
    if near_copies:
        from scenetrack.descriptors.near_copies import near_copies_report

        click.echo(f"\n{near_copies_report(root)}")
    if report.problems:
        raise click.exceptions.Exit(InputError.exit_code)


def _cache_group() -> click.Group:
    group = click.Group(
        name="cache",
        help="List and clear the cache: images, descriptors, demo data.",
        epilog=example("scenetrack cache", "scenetrack cache clear images --yes"),
        params=verbosity_options(),
        callback=_list_cache_without_command,
        invoke_without_command=True,
    )
    listing = click.Command(
        name="list",
        help="List the kinds in the cache, their size and last use; the same as scenetrack cache.",
        epilog=example("scenetrack cache list"),
        params=verbosity_options(),
        callback=_list_cache,
    )
    clear = click.Command(
        name="clear",
        help=(
            "Delete all entries of KIND, the first word of a line of the list; without KIND all "
            "but checkpoints and mit8. Arrays that a process has open are kept."
        ),
        epilog=example("scenetrack cache clear", "scenetrack cache clear images --yes"),
        params=[
            click.Argument(["kind"], required=False, default=""),
            click.Option(["-y", "--yes"], is_flag=True, help="Do not ask for confirmation."),
            *verbosity_options(),
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

    click.echo(visible(format_holdings(holdings())))


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
    for entry in done.in_use:
        click.echo(visible(f"kept, because it is in use: {entry}"))


def _agreed(kind: str) -> bool:
    if not sys.stdin.isatty():
        raise InputError(
            "clearing the cache needs a confirmation, but there is no terminal to ask: add --yes"
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
        params=verbosity_options(),
        callback=show_help_without_command,
        invoke_without_command=True,
    )
    vgg16 = click.Command(
        name="vgg16",
        help=(
            "Time VGG-16 forward and backward on images of 224 x 224 pixels with Keras on "
            "TensorFlow, and compare with published figures. 16 images need about 4 GB."
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
                help="Device that TensorFlow runs on; gpu fails without a GPU.",
            ),
            click.Option(
                ["--repeats"],
                type=click.IntRange(1, 1000),
                help="Passes that the median is taken of.  [default: as many as fit into a minute]",
            ),
            *verbosity_options(),
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
                help="Port to listen on.",
            ),
            *verbosity_options(),
        ],
        callback=_open_ui,
    )


def _open_ui(host: str, port: int) -> None:
    prepare_process()
    from scenetrack.tracking import open_ui

    open_ui(host, port)
