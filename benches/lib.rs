//! Benchmarks; each file beside this one measures one thing.
