"""A double-entry ledger for many accounts and high volume, built on the public names of cqrskit.

::

    ledger serve                 the HTTP API with its projections
    ledger demo                  the same, with a generated sample to try it on
    ledger import transfers.csv  post the transfers of a file
    ledger check                 prove the books from the whole log
"""
