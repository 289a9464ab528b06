"""python -m chorus_plot"""
import sys

from chorus_plot.cli import main

sys.exit(main())
