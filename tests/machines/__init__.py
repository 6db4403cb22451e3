"""Stateful tests: phones, the server and the champion who carries files, with every fault an explicit step.

A seed that fails shrinks to another seed; a list of steps shrinks to the few that matter. The network's profile says
which troubles there are and how often each comes; Hypothesis chooses them and makes the choice small.
"""
