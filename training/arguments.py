"""What each command of `python -m training` takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import TypeAdapter

from models.frozen import Name
from training.ablations import PARTS
from training.downstream import SEGMENTERS
from training.experiments import RECIPES
from training.feeding import Diet
from training.trainers.arms import ARM_NAMES
from training.trainers.stages import PEERS, STAGES

SAMPLES = 200
"""Synthetic samples that promises are checked on."""
PICTURES = 128
"""Of each arm, where arms are compared."""

ABOUT = """Annotated pictures to a bundle: import, fit, export, evaluate, seal; report at any time;
propose what to annotate next."""

Step = Callable[[argparse.Namespace], None]


def build_parser(functions: Mapping[str, Step]) -> argparse.ArgumentParser:
    """A parser whose answer says, as `step`, which of the named functions to run."""
    parser = argparse.ArgumentParser(prog="python -m training", description=ABOUT)
    steps = parser.add_subparsers(required=True)
    step = _add(steps, "import", functions)
    step.add_argument("--data", type=Path, nargs="+", required=True)
    step.add_argument("--product", type=_product, required=True)
    step.add_argument("--run", type=Path, required=True)
    step.add_argument("--recipe", choices=sorted(RECIPES))
    step.add_argument("--labels", help="keep only these kinds of defect, parted by commas")
    step.add_argument("--shots", type=int, help="keep only so many training pictures with a defect")
    step.add_argument("--shots-seed", type=int, default=0, help="which ones")
    step.add_argument(
        "--synthetic", type=Path, nargs="+", default=[], help="folders or zips of made pictures"
    )
    step.add_argument("--without", nargs="+", choices=PARTS, help="leave out parts of generators")
    step.add_argument("--licence", default="not stated")
    step.add_argument("--citation", default="not stated")
    step = _add(steps, "fit", functions)
    step.add_argument("--run", type=Path, required=True)
    step.add_argument("--only", nargs="+", choices=(*STAGES, *PEERS), default=STAGES)
    step.add_argument("--start-from", type=Path, help="a bundle whose generators to start from")
    step.add_argument("--accelerator", default="auto")
    step.add_argument("--devices", type=int, default=1)
    step.add_argument("--precision", default="32-true")
    step = _add(steps, "export", functions)
    step.add_argument("--run", type=Path, required=True)
    step = _add(steps, "evaluate", functions)
    step.add_argument("--run", type=Path, required=True)
    step.add_argument("--bundle", type=Path, help="a sealed bundle's folder; else the run's draft")
    step.add_argument(
        "--samples", type=int, help=f"samples to check, {SAMPLES}; or of each arm, {PICTURES}"
    )
    what = step.add_mutually_exclusive_group()
    what.add_argument("--fidelity", action="store_true", help="compare each arm with real defects")
    what.add_argument("--downstream", action="store_true", help="teach a segmenter with each arm")
    what.add_argument("--feeding", action="store_true", help="teach both detection networks so")
    step.add_argument("--arms", nargs="+", choices=ARM_NAMES, help="all; of --feeding classic ours")
    step.add_argument("--pairs", type=int, default=Diet.pairs, help="of each arm of --feeding")
    step.add_argument(
        "--steps-share", type=float, default=Diet.steps_share, help="of the recipe's, in --feeding"
    )
    step.add_argument("--seeds", type=int, default=3, help="how often each arm is taught")
    step.add_argument("--segmenter", choices=SEGMENTERS, default="unet", help="what is taught")
    step.add_argument("--precision", default="32-true")
    step = _add(steps, "seal", functions)
    step.add_argument("--run", type=Path, required=True)
    step.add_argument("--to", type=Path, required=True)
    step.add_argument("--version", help="the product's next whole number unless named")
    step = _add(steps, "report", functions)
    step.add_argument("--run", type=Path, required=True)
    step.add_argument("--bundle", type=Path, help="a sealed bundle's folder; else the run's own")
    step.add_argument("--out", type=Path, help="report.html in the run's folder unless named")
    step.add_argument("--samples", type=int, default=PICTURES, help="pictures of each arm")
    step = _add(steps, "propose", functions)
    step.add_argument("--bundle", type=Path, required=True, help="a sealed bundle's folder")
    step.add_argument("--from", type=Path, required=True, dest="pictures", help="their folder")
    step.add_argument("--to", type=Path, required=True, help="a new folder")
    step.add_argument("--n", type=int, help="crops of each picture; the bundle's unless named")
    step.add_argument("--outlines", action="store_true", help="draw what the segmenter found")
    return parser


def _add(
    steps: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    functions: Mapping[str, Step],
) -> argparse.ArgumentParser:
    step = steps.add_parser(name, help=functions[name].__doc__)
    step.set_defaults(step=functions[name])
    return step


def _product(text: str) -> str:
    """A name that a manifest takes, asked for before the hours of training, not after them."""
    return TypeAdapter[str](Name).validate_python(text)
