"""What pipelines are made of, in packages that read in the order of the data.

adapters (raw layouts), splits, ingest, datasets (committed), training, promotion, sweeps, prediction, report; pruning
deletes what is old; below them lie core, storage, images and metrics. A package imports only what stands on a lower
floor (`make lint` checks it):

    report | pruning
    prediction | sweeps
    promotion
    training
    ingest
    datasets
    adapters
    images
    storage | splits | metrics
    core
    errors | version | schemas
"""
