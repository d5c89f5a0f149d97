"""Help that a learner opens in steps: hints, then the solution; and the source of a function."""

import html
import inspect
import textwrap

from llmcourse.teach.exercises import get_exercise


def solution_source(name: str) -> str:
    """Return the solution of the exercise `name` as source text."""
    solution = get_exercise(name).solution
    return textwrap.dedent(inspect.getsource(solution)).rstrip() if callable(solution) else repr(solution)


def hints_html(name: str) -> str:
    """Return the hints and the solution as HTML folds that open one at a time, without a kernel."""
    exercise = get_exercise(name)
    parts = [
        f"<details><summary>Hint {number} of {len(exercise.hints)}</summary>{html.escape(hint)}</details>"
        for number, hint in enumerate(exercise.hints, start=1)
    ]
    source = html.escape(solution_source(name))
    parts.append(f"<details><summary>Solution</summary><pre>{source}</pre></details>")
    return "\n".join(parts)


def hints(name: str):
    """Show the hints and the solution of the exercise `name`, each folded until you open it."""
    from IPython.display import HTML

    return HTML(hints_html(name))


def show_source(thing):
    """Show the source of a function or class of the package, as it is installed."""
    from IPython.display import Markdown

    where = f"{inspect.getmodule(thing).__name__}.{thing.__qualname__}"
    return Markdown(f"`{where}`\n```python\n{textwrap.dedent(inspect.getsource(thing)).rstrip()}\n```")
