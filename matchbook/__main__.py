"`python -m matchbook`: the command, also for launchers of several processes."
from matchbook.cli import main

if __name__ == "__main__": main()
