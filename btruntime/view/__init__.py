"""Trees to look at: text, DOT, SVG, and live in a terminal, all from `btruntime.events.TreeSnapshot`."""
