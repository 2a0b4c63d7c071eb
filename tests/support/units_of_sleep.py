"""A module that takes ten minutes to load."""

import time

time.sleep(600)
