"""Tries to break the store from outside: real servers that are killed, retries, lost answers, hostile input.

`make torture` runs the long forms (`python -m torture --help`); torture/tests the short ones, in `make test`.
Nothing of the product imports this.
"""
