"""`btruntime demo`: from demonstrations to a running skill, in simulation."""

from btruntime.demo.demo import DemoConfig, DemoReport, run_demo

__all__ = ["DemoConfig", "DemoReport", "run_demo"]
