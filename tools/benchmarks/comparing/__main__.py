"""`python -m comparing PEER CASE`: one case, here."""

import sys

from comparing.cases import show

show(*sys.argv[1:3])
