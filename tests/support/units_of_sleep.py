"""A module that takes half a minute to load."""

import time

time.sleep(30)
