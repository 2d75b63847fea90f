//! What NATS answered: whether it can carry the pipeline.
