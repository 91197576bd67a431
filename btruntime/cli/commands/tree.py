"""Draw the behaviour tree of a skill or an agent, as text, DOT or SVG, without a robot.

py_trees' own tool works too:
  py-trees-render -k '{"id": "pick-up-cup"}' btruntime.view.render.create_root
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from btruntime.cli.options import add_agents_dir, add_skills_dir


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", help="of a skill or an agent")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--dot", action="store_true", help="as a DOT graph")
    form.add_argument("--svg", action="store_true", help="as an SVG picture")
    form.add_argument("--ascii", action="store_true", help="as text without box-drawing characters")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help="write there instead of printing")
    add_skills_dir(parser)
    add_agents_dir(parser)


def run(args: argparse.Namespace) -> int:
    from btruntime.events import snapshot
    from btruntime.view.dot import dot
    from btruntime.view.render import create_root
    from btruntime.view.svg import svg
    from btruntime.view.unicode import unicode_tree
    from foundation.files import write_atomic

    drawn = snapshot(create_root(args.id, args.skills_dir, args.agents_dir), 0, 0.0)
    if args.dot:
        text = dot(drawn)
    elif args.svg:
        text = svg(drawn)
    else:
        text = unicode_tree(drawn, ascii=args.ascii, colour=sys.stdout.isatty() and args.output is None)
    if args.output is not None:
        write_atomic(args.output, text.encode())
    else:
        print(text)
    return 0
