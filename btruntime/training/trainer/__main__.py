"""`python -m btruntime.training.trainer`: see `program.py`."""

import os
import sys

if __name__ == "__main__":
    # Threads that spin while they wait make training three times slower beside any other busy program. It is read
    # when torch is loaded, hence the import below it.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from btruntime.training.trainer.program import main

    sys.exit(main())
