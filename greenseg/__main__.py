"""`python -m greenseg` is the `greenseg` command."""

from greenseg.cli import main

if __name__ == "__main__":
    main()
