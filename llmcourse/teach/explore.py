"""Widgets to play with; each stands below a static figure that shows the same without a kernel."""

import matplotlib.pyplot as plt
import torch

from llmcourse.generate import generate
from llmcourse.positions import rotary_angles, sinusoidal_positions
from llmcourse.runtime import evaluating, someone_is_watching
from llmcourse.sampling import keep_top_k, keep_top_p
from llmcourse.teach import plots


def explore_attention(model, tokenizer, sentence: str) -> None:
    """Let the reader type a sentence and walk through layers and heads."""
    from ipywidgets import IntSlider, Textarea, interact

    config = model.config

    def show(sentence, layer, head):
        ids = tokenizer.encode(sentence)[: min(32, config.context_length)] or tokenizer.encode(" ")
        maps = model.attention_maps(torch.tensor([ids]))
        tokens = tokenizer.tokens(ids)
        title = f"layer {layer}, head {head}: each row is a query and sums to 1"
        plots.heatmap(maps[layer][0, head], tokens, tokens, title, vmin=0, vmax=1, cmap="Greys")
        plt.show()

    interact(
        show,
        sentence=Textarea(sentence, continuous_update=False),
        layer=IntSlider(config.n_layers // 2, 0, config.n_layers - 1),
        head=IntSlider(0, 0, config.n_heads - 1),
    )


def position_figure(kind: str = "sinusoidal", d_model: int = 64, n_positions: int = 64, base: float = 1e4):
    """Draw the table of positions: one row a position, one column a dimension."""
    if kind == "sinusoidal":
        table = sinusoidal_positions(n_positions, d_model, base)
    else:
        table = torch.cat(rotary_angles(n_positions, d_model, base), dim=-1)
    title = f"{kind}, d_model={d_model}, base={base:g}"
    return plots.heatmap(
        table, title=title, x_label="dimension", y_label="position", vmin=-1, vmax=1, cmap="RdBu_r"
    )


def explore_positions() -> None:
    """Let the reader turn the width, the length and the base of the position table."""
    from ipywidgets import Dropdown, FloatLogSlider, IntSlider, interact

    def show(kind, d_model, n_positions, base):
        position_figure(kind, d_model, n_positions, base)
        plt.show()

    interact(
        show,
        kind=Dropdown(options=["sinusoidal", "rotary (cosines, then sines)"]),
        d_model=IntSlider(64, 8, 256, 8),
        n_positions=IntSlider(64, 8, 512, 8),
        base=FloatLogSlider(1e4, min=1, max=6),
    )


def next_token_figure(logits, tokenizer, temperature=1.0, top_k=None, top_p=None, n_shown=12):
    """Draw the probabilities of the likeliest next tokens before and after the settings; (V,) logits."""
    before = logits.softmax(-1)
    after = logits / max(temperature, 1e-4)
    after = keep_top_k(after, top_k) if top_k else after
    after = keep_top_p(after, top_p) if top_p else after
    after = after.softmax(-1)
    settings = [f"temperature {temperature:g}", *([f"top-k {top_k}"] if top_k else [])]
    settings += [f"top-p {top_p:g}"] if top_p else []
    order = before.argsort(descending=True)[:n_shown]
    axis = plots.new_figure(height=2.8)[1]
    x = torch.arange(len(order))
    axis.bar(x - 0.2, before[order], 0.4, color=plots.COLORS[0], label="the model's own")
    axis.bar(x + 0.2, after[order], 0.4, color=plots.COLORS[5], label="with your settings", hatch="//")
    axis.set_xticks(x, [plots.printable(t) for t in tokenizer.tokens(order)], rotation=40, ha="right")
    axis.set(ylabel="probability", title=", ".join(settings))
    axis.legend(frameon=False)
    return axis


def explore_sampling(model, tokenizer, prompt: str) -> None:
    """Let the reader turn temperature, top-k and top-p and read what the model then writes."""
    from ipywidgets import FloatSlider, IntSlider, Textarea, interact

    def show(prompt, temperature, top_k, top_p, seed):
        ids = torch.tensor([tokenizer.encode(prompt) or tokenizer.encode("\n")])
        with evaluating(model), torch.no_grad():
            logits = model(ids[:, -model.config.context_length :])[0, -1]
        settings = dict(temperature=temperature, top_k=top_k or None, top_p=top_p)
        next_token_figure(logits, tokenizer, **settings)
        plt.show()
        print(tokenizer.decode(generate(model, ids, 60, seed=seed, **settings)[0]))

    interact(
        show,
        prompt=Textarea(prompt, continuous_update=False),
        temperature=FloatSlider(0.8, min=0.0, max=2.0, step=0.1, continuous_update=False),
        top_k=IntSlider(0, 0, 100, continuous_update=False),
        top_p=FloatSlider(1.0, min=0.05, max=1.0, step=0.05, continuous_update=False),
        seed=IntSlider(1, 1, 20, continuous_update=False),
    )


def show_tensorboard(log_dir: str, height: int = 500) -> None:
    """Open TensorBoard under the cell, in Jupyter or Colab; the server ends with the kernel."""
    import sys

    from IPython.display import IFrame, display
    from tensorboard import notebook, program

    if not someone_is_watching():
        print("TensorBoard opens here when you run this cell in Jupyter or Colab")
    elif "google.colab" in sys.modules:
        notebook.start(f"--logdir {log_dir} --port 0")
    else:
        server = program.TensorBoard()
        server.configure(argv=[None, "--logdir", str(log_dir), "--port", "0", "--load_fast", "false"])
        url = server.launch()
        print(f"TensorBoard is at {url}; stop it by restarting the kernel")
        display(IFrame(url, width="100%", height=height))
