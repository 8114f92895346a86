"""The processes: a supervisor that forks workers and keeps them running, reloads and hands over.

workers.py is the supervisor, worker.py what it forks; the others are what it does besides, and by what.
"""
