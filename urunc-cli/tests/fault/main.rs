//! Fault injection: `urunc` is killed, or its system calls fail, at every place where that can happen; two commands race;
//! what a command needs is gone. Afterwards the host must be what it was.
//!
//! The tests need root and x86_64, and make everything in mount and network namespaces of their own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod descriptors;
mod disk;
mod errors;
mod forced;
mod ground;
mod inventory;
mod isolate;
mod kills;
mod monitor;
mod pod;
mod races;
#[expect(dead_code, reason = "it serves the end-to-end tests too")]
#[path = "../support/scene.rs"]
mod scene;
mod sweep;
mod trace;

use libtest_mimic::{Arguments, Failed, Trial};

/// What a test does.
type Test = fn() -> Result<(), Failed>;

fn main() -> std::process::ExitCode {
    if let Some(tap) = monitor::asked_for() {
        monitor::run(tap.as_deref());
    }
    if let Some(paths) = descriptors::asked_for() {
        descriptors::run(&paths);
        return std::process::ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    let tests: &[(&str, Test)] = &[
        ("kills::killed_at_any_system_call_alone", kills::alone),
        ("kills::killed_at_any_system_call_in_a_pod", kills::in_pod),
        ("kills::killed_at_any_system_call_with_disks", kills::with_disks),
        ("kills::killed_at_some_system_calls_with_hooks", kills::with_hooks),
        ("kills::killed_at_some_system_calls_behind_a_pods_address", kills::behind_pod),
        ("errors::failed_at_any_system_call_alone", errors::alone),
        ("errors::failed_at_any_system_call_in_a_pod", errors::in_pod),
        ("errors::failed_at_any_system_call_with_disks", errors::with_disks),
        ("races::one_command_meets_another_at_any_system_call", races::pairs),
        ("descriptors::their_number_stays_the_same", descriptors::constant),
        ("forced::a_record_that_nobody_can_read", forced::unreadable_record),
        ("forced::a_record_that_nobody_can_read_with_disks", forced::unreadable_record_with_disks),
        ("forced::a_bundle_that_is_gone", forced::bundle_gone),
        ("forced::a_monitor_binary_that_is_gone", forced::monitor_gone),
        ("forced::a_record_from_before_the_last_boot", forced::other_boot),
        ("forced::a_network_namespace_that_is_gone", forced::namespace_gone),
    ];
    let missing = if arguments.list { None } else { isolate::isolate() };
    let no_disk = disk::Disk::missing().map(str::to_owned);
    let missing_for =
        |name: &str| missing.clone().or_else(|| no_disk.clone().filter(|_| name.ends_with("_disks")));
    let trials = tests.iter().map(|&(name, run)| match &missing_for(name) {
        None => Trial::test(name, run),
        Some(what) if isolate::is_required(what) => {
            let message = format!("needs {what}, which URUNC_REQUIRE promises");
            Trial::test(name, move || Err(message.into()))
        }
        Some(what) => {
            Trial::test(name, run).with_kind(format!("skipped: needs {what}")).with_ignored_flag(true)
        }
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
