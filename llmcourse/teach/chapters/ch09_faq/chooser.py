"""A table of the models that meet a need, and of those that do not with the reasons; and sliders to turn it."""

from collections.abc import Sequence

from llmcourse.tune.choose import Need, choose, memory_bytes, reasons_against, token_seconds
from llmcourse.tune.open_models import TASKS, OpenModel


def table(models: Sequence[OpenModel], need: Need) -> str:
    """Return one line for each model of the task: licence, memory and time where it fits, else what speaks against it.

    >>> from llmcourse.tune.open_models import read_models
    >>> print(table(read_models(), Need("speech", gigabytes=0.2)))
    fits  whisper-tiny              0.09 GB            apache-2.0, 99 languages
      -   whisper-small             0.5 GB
      -   whisper-large-v3-turbo    1.7 GB
    """
    lines = []
    for model in choose(models, need):
        seconds = token_seconds(model, need)
        time = "" if seconds is None else f"{1000 * seconds:6.1f} ms"
        told = f"{memory_bytes(model, need.precision, need.tokens) / 1e9:.2f} GB {time:10}"
        said = f"{model.n_languages} languages" if model.n_languages > 2 else model.languages
        lines.append(f"fits  {model.short_name:25} {told} {model.licence}, {said}")
    for model in models:
        if model.task == need.task and (reasons := reasons_against(model, need)):
            lines.append(f"  -   {model.short_name:25} {'; '.join(reasons)}")
    return "\n".join(lines)


def explore_models(models: Sequence[OpenModel], bandwidth: float) -> None:
    """Let the reader turn each part of a need, and read which models meet it."""
    from ipywidgets import Checkbox, Dropdown, FloatLogSlider, Text, interact

    def show(task, language, commercial, precision, gigabytes, tokens, milliseconds):
        print(
            table(
                models,
                Need(
                    task,
                    language.strip(),
                    commercial,
                    gigabytes,
                    precision,
                    int(tokens),
                    milliseconds / 1000,
                    bandwidth,
                ),
            )
        )

    interact(
        show,
        task=Dropdown(options=TASKS),
        language=Text("zh", continuous_update=False),
        commercial=Checkbox(True, description="sell"),
        precision=Dropdown(options=("bfloat16", "int8", "int4", "float32")),
        gigabytes=FloatLogSlider(4, min=-1.5, max=2, readout_format=".2g", continuous_update=False),
        tokens=FloatLogSlider(
            512, base=2, min=5, max=17, step=1, readout_format=".0f", continuous_update=False
        ),
        milliseconds=FloatLogSlider(200, min=0, max=4, readout_format=".0f", continuous_update=False),
    )
