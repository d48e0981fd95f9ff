"""`python -m selfsight`, which is what `torchrun -m selfsight` starts on each rank."""

from selfsight.cli import main

if __name__ == "__main__":
    main()
