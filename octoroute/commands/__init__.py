"""What `octoroute` does besides serving, each a function that cli.py calls: code that blocks, in a process
that ends.
"""
