"""python -m chorus_lm_eval: the command chorus-lm-eval."""
import sys

from chorus_lm_eval.cli import main

sys.exit(main())
