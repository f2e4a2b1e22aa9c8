//! Tests that need a process of their own, to kill it, to fail its system calls or to give it a namespace. This
//! binary runs itself for that, as `kernel helper NAME ARGUMENT…`; hence its own `main`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod helper;
mod kills;
mod reuse;
#[path = "../support/mod.rs"]
mod support;
mod trace;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, marker, name, rest @ ..] = arguments.as_slice()
        && marker == "helper"
    {
        return helper::run(name, rest).into();
    }
    let tests: [(&str, fn()); 6] = [
        (
            "a_writer_killed_thousands_of_times_never_shows_a_torn_record",
            kills::a_writer_killed_thousands_of_times,
        ),
        ("killed_at_any_system_call_all_or_nothing_is_seen", faults::killed_at_any_system_call),
        ("failed_at_any_system_call_the_error_tells_the_truth", faults::failed_at_any_system_call),
        ("no_sync_is_missing_and_none_is_made_twice", faults::no_sync_is_missing_and_none_is_made_twice),
        ("the_costs_of_each_operation_stay_small", faults::the_costs_of_each_operation),
        ("a_number_used_again_is_never_taken_for_ours", reuse::a_number_used_again),
    ];
    let tests = tests
        .into_iter()
        .map(|(name, test)| {
            Trial::test(name, move || {
                test();
                Ok(())
            })
        })
        .collect();
    // One after the other: a child that one starts would hold the locks of another until it executes its program.
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, tests).exit_code()
}
