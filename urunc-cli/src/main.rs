//! The `urunc` binary.
fn main() {}
