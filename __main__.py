"""`python -m avfuse` is the same as the `avfuse` console script."""

from avfuse.cli import main

if __name__ == "__main__":
    main()
