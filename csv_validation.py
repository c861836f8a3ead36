"""The original's name for validate.py on CSV data; it takes the same flags."""

import sys

from validate import main

if __name__ == "__main__":
    sys.exit(main())
