"""Who goes where: groups (patients, slides or images) to train, eval and test, as pure functions.

Reads counts of patches per group and class, and a CSV where a published split is taken; leaves a ledger or folds in
which no group is split. Imports core and schemas.
"""
