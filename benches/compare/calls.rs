//! How many system calls each command makes, counted by strace(1): no timing, so hardly any noise.
//!
//! A process counts until it executes the container's program, that one call included.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::error::{BenchError, Context, Result};
use crate::life::pid_of;
use crate::report::Table;
use crate::runtime::{Runtime, Step};
use crate::sys;

pub(crate) const TITLE: &str = "System calls";

/// How long a traced command may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Counts once for each runtime.
pub(crate) fn measure(bench: &mut Bench) -> Result<Table> {
    let runtimes = bench.runtimes();
    let mut table = Table::new(TITLE, runtimes.iter().map(|runtime| runtime.kind.name()));
    table.note("Create includes the container's process up to and including the execution of the program.");
    let mut counts: Vec<Vec<Option<f64>>> = Vec::new();
    for runtime in &*runtimes {
        bench.say(&format!("  {}", runtime.kind.name()));
        match life(bench, runtime) {
            Ok(steps) => counts.push(steps.map(Some).to_vec()),
            Err(error) => {
                bench.complain(runtime.kind, &error);
                counts.push(vec![None; 4]);
            }
        }
    }
    for (index, step) in Step::ALL.into_iter().enumerate() {
        table.row(step.name(), "", counts.iter().map(|steps| steps[index]));
    }
    table.row("all four", "", counts.iter().map(|steps| steps.iter().copied().sum::<Option<f64>>()));
    Ok(table)
}

fn life(bench: &Bench, runtime: &Runtime) -> Result<[f64; 4]> {
    let id = "traced";
    let directory = bench.place.directory(&format!("trace-{}", runtime.kind.name()))?;
    let pid_file = runtime.pid_file(id);
    let _ = fs::remove_file(&pid_file);
    let trace = |step: Step| {
        let mut command = Command::new("strace");
        command.args(["-ff", "-q", "-s", "0", "-o"]).arg(directory.join(step.name()));
        command.args(runtime.command(step, id)).envs(bench.environment());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().to("run strace")
    };
    // strace follows the container, so it ends only with that.
    let mut create = trace(Step::Create)?;
    let main = directory.join(format!("{}.", Step::Create.name()));
    wait_until("create does not end under strace", || pid_file.exists() && has_ended(&main))?;
    let pid = pid_of(&pid_file)?;
    for step in [Step::Start, Step::Kill] {
        let status = trace(step)?.wait().to("wait for strace")?;
        if !status.success() {
            let program = format!("{} {}", runtime.kind.name(), step.name());
            return Err(BenchError::Command {
                program,
                status: status.to_string(),
                text: "traced".to_owned(),
            });
        }
        if step == Step::Start {
            // Otherwise the container could be killed before it executes its program.
            wait_until("the program is not executed", || executed(&directory, &pid_file))?;
        }
    }
    create.wait().to("wait for strace")?;
    let _ = sys::wait4(pid);
    trace(Step::Delete)?.wait().to("wait for strace")?;
    let mut counts = [0.0; 4];
    for (count, step) in counts.iter_mut().zip(Step::ALL) {
        *count = count_calls(&directory, step)?;
    }
    Ok(counts)
}

fn wait_until(what: &str, condition: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return Err(BenchError::Unexpected(what.to_owned()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Traces of `prefix`, one for each process. First comes that of the process that strace started, which begins with the
/// execution of a program; the others have at least prepared theirs. Numbers tell no order: they start again.
fn files(prefix: &Path) -> Vec<String> {
    let (Some(directory), Some(name)) = (prefix.parent(), prefix.file_name().and_then(|name| name.to_str()))
    else {
        return Vec::new();
    };
    let mut files: Vec<String> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry.file_name().to_str()?.strip_prefix(name)?;
            fs::read_to_string(entry.path()).ok()
        })
        .collect();
    files.sort_by_key(|text| !text.starts_with("execve("));
    files
}

/// Whether the first process of a trace has ended.
fn has_ended(prefix: &Path) -> bool {
    files(prefix).first().is_some_and(|text| text.contains("+++ exited"))
}

fn executed(directory: &Path, pid_file: &Path) -> bool {
    let Ok(pid) = pid_of(pid_file) else { return false };
    fs::read_to_string(directory.join(format!("{}.{pid}", Step::Create.name())))
        .is_ok_and(|text| text.lines().any(is_execution))
}

fn is_execution(line: &str) -> bool {
    line.starts_with("execve(") && line.ends_with("= 0")
}

fn count_calls(directory: &Path, step: Step) -> Result<f64> {
    let files = files(&directory.join(format!("{}.", step.name())));
    if files.is_empty() {
        return Err(BenchError::Unexpected(format!("strace wrote nothing about {}", step.name())));
    }
    let (mut count, mut first) = (0u32, true);
    for text in files {
        for line in text.lines().filter(|line| !line.starts_with(['+', '-'])) {
            count += 1;
            // The first process's first call is the one that made it a runtime; any other ends our interest, but for those of
            // runtimes that execute themselves again.
            if is_execution(line) && !first && !line.contains("/proc/self") && !line.contains("/memfd") {
                break;
            }
            first = false;
        }
    }
    Ok(f64::from(count))
}
