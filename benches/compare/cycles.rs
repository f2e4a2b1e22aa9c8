//! Whole lives, one at a time, the runtimes taking turns in random order.

use std::time::Duration;

use crate::bench::Bench;
use crate::error::Result;
use crate::life::{Life, pid_of};
use crate::report::{Table, ms};
use crate::runtime::{Runtime, Step};

pub(crate) const TITLE: &str = "One container's life";

/// Measures `rounds` rounds.
pub(crate) fn measure(bench: &mut Bench, rounds: usize) -> Result<Table> {
    let runtimes = bench.runtimes();
    let mut launcher = bench.launcher()?;
    let mut lives: Vec<Vec<Life>> = runtimes.iter().map(|_| Vec::new()).collect();
    let mut failures = vec![0.0; runtimes.len()];
    let mut order: Vec<usize> = (0..runtimes.len()).collect();
    // The first round fills caches and is not counted.
    for round in 0..=rounds {
        bench.shuffle(&mut order);
        for &index in &order {
            match Life::lead(&runtimes[index], &mut launcher, &format!("life{round}")) {
                Ok(life) if round > 0 => lives[index].push(life),
                Ok(_) => {}
                Err(error) => {
                    bench.complain(runtimes[index].kind, &error);
                    failures[index] += 1.0;
                }
            }
        }
        if round % 10 == 0 {
            bench.say(&format!("  round {round} of {rounds}"));
        }
    }
    let mut table = Table::new(TITLE, runtimes.iter().map(|runtime| runtime.kind.name()));
    let mut add = |measure: &str, unit, value: &dyn Fn(&Life) -> f64| {
        table.row(measure, unit, lives.iter().map(|lives| lives.iter().map(value).collect::<Vec<_>>()));
    };
    add("whole cycle, wall", "ms", &|life| ms(life.whole()));
    add("whole cycle, CPU", "ms", &|life| ms(life.cpu));
    add("create to first byte", "ms", &|life| ms(life.first_byte));
    for (index, step) in Step::ALL.into_iter().enumerate() {
        add(&format!("{}, wall", step.name()), "ms", &|life| ms(life.steps[index].wall()));
        add(&format!("{}, CPU", step.name()), "ms", &|life| ms(life.steps[index].cpu));
        add(&format!("{}, peak memory", step.name()), "MiB", &|life| mib(life.steps[index].peak_kib));
    }
    add("peak memory of any command", "MiB", &|life| {
        mib(life.steps.iter().map(|cost| cost.peak_kib).max().unwrap_or(0))
    });
    let waiting: Vec<Vec<f64>> =
        runtimes.iter().map(|runtime| waiting_memory(bench, runtime).unwrap_or_default()).collect();
    table.row("memory of the waiting init (proportional)", "MiB", waiting);
    table.row("failures", "", failures.into_iter().map(|count| [count]));
    Ok(table)
}

/// The proportional set size of a created container's process.
fn waiting_memory(bench: &mut Bench, runtime: &Runtime) -> Result<Vec<f64>> {
    let mut launcher = bench.launcher()?;
    let mut values = Vec::new();
    for round in 0..3 {
        let id = format!("waiting{round}");
        launcher.run(None, &runtime.command(Step::Create, &id))?;
        let pid = pid_of(&runtime.pid_file(&id))?;
        values.extend(proportional_kib(pid).map(mib));
        for step in [Step::Kill, Step::Delete] {
            launcher.run(None, &runtime.command(step, &id))?;
            if step == Step::Kill {
                let _ = crate::sys::wait4(pid);
            }
        }
    }
    Ok(values)
}

/// `Pss` of proc_pid_smaps(5), in KiB.
pub(crate) fn proportional_kib(pid: i32) -> Option<u64> {
    rollup(pid, "Pss:")
}

/// A line of `smaps_rollup`, in KiB.
pub(crate) fn rollup(pid: i32, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().trim_end_matches(" kB").parse().ok()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn mib(kib: u64) -> f64 {
    Duration::from_secs(kib).as_secs() as f64 / 1024.0
}
