"""Which recipe? Trials of several on train and eval, compared by patient; the test split can't be opened from here.

Imports what stands below: training, and of promotion what serves an exported model.
"""
