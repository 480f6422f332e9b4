"""What concerns all decorated functions of the process: list, report, drain, fork."""
