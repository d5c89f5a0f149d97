"""Help that a learner opens in steps: hints, then, when asked for, the solution; and a function's source."""

import html
import inspect
import textwrap

from llmcourse.teach.exercises import NoSolution, get_exercise, get_solution


def solution_source(name: str) -> str:
    """Return the solution of the exercise `name` as source text; raises NoSolution where there is none."""
    solution = get_solution(name)
    return textwrap.dedent(inspect.getsource(solution)).rstrip() if callable(solution) else repr(solution)


def hints_html(name: str) -> str:
    """Return the hints as HTML folds that open one at a time, without a kernel, and how to go on."""
    exercise = get_exercise(name)
    folds = [
        f"<details><summary>Hint {number} of {len(exercise.hints)}</summary>{html.escape(hint)}</details>"
        for number, hint in enumerate(exercise.hints, start=1)
    ]
    asking = html.escape(f'hints("{name}", solution=True)', quote=False)
    return "\n".join([*folds, f"<small><code>{asking}</code> shows a solution.</small>"])


def solution_html(name: str) -> str:
    """Return the solution as HTML, or a sentence where this copy of the course has none."""
    try:
        return f"<pre>{html.escape(solution_source(name))}</pre>"
    except NoSolution as error:
        return f"<p>{html.escape(str(error))}: the hints are what there is.</p>"


def hints(name: str, solution: bool = False):
    """Show the hints of the exercise `name`, each folded until you open it; or its solution."""
    from IPython.display import HTML

    return HTML(solution_html(name) if solution else hints_html(name))


def show_source(thing):
    """Show the source of a function or class of the package, as it is installed."""
    from IPython.display import Markdown

    where = f"{inspect.getmodule(thing).__name__}.{thing.__qualname__}"
    return Markdown(f"`{where}`\n```python\n{textwrap.dedent(inspect.getsource(thing)).rstrip()}\n```")
