"""What pipelines are made of: adapters, decoding, Example codec, shard writer, storage, splits, audit."""
