//! The `lookback-dev` program.

fn main() {}
