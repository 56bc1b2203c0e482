"""Commands beside the entry points: look at data, time the machine, open the UI."""

from __future__ import annotations

import click

from scenetrack.cli.voice import (
    example,
    prepare_process,
    show_help_without_command,
    voice_options,
)
from scenetrack.config import DEVICES
from scenetrack.errors import InputError


def tools() -> list[click.Command]:
    """``data check``, ``bench vgg16`` and ``ui``."""
    return [_data_group(), _bench_group(), _ui_command()]


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
    from scenetrack import stages
    from scenetrack.bench import bench_vgg16

    stages.import_keras()
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
