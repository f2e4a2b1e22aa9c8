//! Micro-benchmarks of the libraries: `cargo bench -p urunc-benches`. What needs root says so where it is missing.
//!
//! They show where a command's time goes and catch what gets slower; what users feel is measured by `compare`.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

mod namespace;
mod netns;
mod rootfs;
mod state;
mod vmm;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    state::measure(&mut criterion);
    netns::measure(&mut criterion);
    vmm::measure(&mut criterion);
    rootfs::measure(&mut criterion);
    criterion.final_summary();
}
